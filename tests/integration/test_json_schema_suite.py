"""JSON Schema's own tests: of the schemas that are taken, every instance is judged rightly.

Instances are written as the grammar would: whole numbers without a point, and names in an order
that it allows. Those with characters that are never written are left out.
"""

import json
import re
from collections.abc import Iterator
from itertools import islice, permutations, product
from pathlib import Path
from typing import Any

import pytest

from provider_core.errors import InvalidRequest
from provider_core.text.grammar_compiler import GrammarFactory
from provider_core.types import Constraint, Grammar
from tests.unit.text.byte_tokenizer import END, ByteTokenizer
from tests.unit.text.writing import reads

DRAFTS = ("draft7", "draft2020-12")
LEAST_TAKEN = 0.5
"""Share of the required schemas; the others use what cannot be enforced."""

_SUITE = Path(__file__).parents[1] / "data/json_schema_test_suite"
_LEGACY = {"$schema": "http://json-schema.org/draft-07/schema#"}
_FACTORY = GrammarFactory(ByteTokenizer(), frozenset({END}))

Case = dict[str, Any]  # description, schema, tests


def _files(draft: str) -> dict[str, list[Case]]:
    files: dict[str, list[Case]] = json.loads((_SUITE / f"{draft}.json").read_bytes())
    return files


def _required() -> list[str]:
    return [
        f"{draft}/{name}"
        for draft in DRAFTS
        for name in _files(draft)
        # There a format asserts nothing; here it does.
        if not name.startswith("optional/") and (draft, name) != ("draft2020-12", "format")
    ]


def _optional() -> list[str]:
    return [f"{d}/{name}" for d in DRAFTS for name in _files(d) if name.startswith("optional/")]


def _taken(file: str) -> Iterator[tuple[Case, Grammar | None]]:
    draft, _, name = file.partition("/")
    for case in _files(draft)[name]:
        schema = case["schema"]
        if isinstance(schema, bool):
            schema = {"allOf": [schema]}
        if draft == "draft7":
            schema = _LEGACY | schema
        constraint = Constraint(kind="json_schema", source=json.dumps(schema), param="schema")
        try:
            yield case, _FACTORY.compile(constraint)
        except InvalidRequest:
            yield case, None


def _wrongly_judged(grammar: Grammar, case: Case, *, of: bool) -> list[str]:
    return [
        f"{case['description']}: {description}, separated by {separators}"
        for description, is_valid, data in case["tests"]
        if is_valid is of and _is_writable(data)
        for separators in ((",", ":"), (", ", ": "))
        if _is_written(grammar, _as_written(data), separators) is not is_valid
    ]


def _is_written(grammar: Grammar, value: Any, separators: tuple[str, str]) -> bool:  # JSON
    """Whether the grammar allows a value, in any of the first orders of its names."""
    texts = (
        json.dumps(order, ensure_ascii=False, separators=separators).encode()
        for order in islice(_orders(value), 64)
    )
    return any(reads(grammar, list(text), end=END) for text in texts)


def _as_written(value: Any) -> Any:  # JSON
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**63:
        return int(value)
    if isinstance(value, list):
        return [_as_written(each) for each in value]
    if isinstance(value, dict):
        return {name: _as_written(each) for name, each in value.items()}
    return value


def _is_writable(value: Any) -> bool:
    text = json.dumps(value, ensure_ascii=False)
    return not re.search(r"\\u00[01]|\x7f", text)


def _orders(value: Any) -> Iterator[Any]:
    """The same value with the names of its objects in other orders."""
    if isinstance(value, list):
        yield from map(list, product(*(list(_orders(each)) for each in value)))
    elif isinstance(value, dict):
        for names in permutations(value):
            for values in product(*(list(_orders(value[name])) for name in names)):
                yield dict(zip(names, values, strict=True))
    else:
        yield value


@pytest.mark.parametrize("file", _required() + _optional())
def test_no_invalid_instance_can_be_written(file: str) -> None:
    """Whatever is taken is enforced wholly."""
    for case, grammar in _taken(file):
        if grammar is not None:
            assert _wrongly_judged(grammar, case, of=False) == []


@pytest.mark.parametrize("file", _required())
def test_every_valid_instance_can_be_written(file: str) -> None:
    """Compact, and with a space behind commas and colons."""
    for case, grammar in _taken(file):
        if grammar is not None:
            assert _wrongly_judged(grammar, case, of=True) == []


def test_so_many_schemas_are_taken() -> None:
    """And not fewer; the rest is refused by name."""
    taken = [grammar is not None for file in _required() for _, grammar in _taken(file)]
    print(f"{sum(taken)} of {len(taken)} schemas are enforced")  # noqa: T201 - a figure to see
    assert sum(taken) >= LEAST_TAKEN * len(taken)
