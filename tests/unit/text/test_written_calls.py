"""Whatever a grammar of calls lets a model write, the family's parser reads as calls that conform.

The model is chance with a taste for markup, quotes and brackets, wherever the grammar allows them.
"""

import json
import random
import sys
from collections.abc import Sequence

import jsonschema_rs
import numpy as np
import pytest

from provider_core.text.grammar_compiler import GrammarFactory
from provider_core.text.tool_grammar import tool_constraint
from provider_core.text.tool_parsers import TOOL_FAMILIES
from provider_core.tool_calling import CallArguments, CallEnd, CallStart
from provider_core.types import Grammar, Tool
from tests.unit.text.byte_tokenizer import END, ByteTokenizer
from tests.unit.text.call_reading import ELEMENTS, JSON_FAMILIES, read
from tests.unit.text.writing import allowed_ids, is_allowed

NUM_TEXTS = 6
MAX_BYTES = 600
TOKENIZER = ByteTokenizer()
FACTORY = GrammarFactory(TOKENIZER, frozenset({END}))
PARAMETERS = {
    "nothing": None,
    "text": {
        "type": "object",
        "properties": {
            "a": {"type": "string"},
            "b": {"type": "integer", "minimum": 0, "maximum": 99},
        },
        "required": ["a"],
    },
    "lists": {
        "type": "object",
        "properties": {
            "q": {"enum": ["x", "y z"]},
            "l": {"type": "array", "items": {"type": "string", "maxLength": 30}, "maxItems": 2},
            "n": {"type": ["string", "null"], "maxLength": 30},
        },
        "required": ["q"],
    },
    "number": {"type": "object", "properties": {"n": {"type": "number"}}, "required": ["n"]},
    "any": {"type": "object", "properties": {"any": {}}},
}
TOOLS = [Tool(name=name, parameters=schema) for name, schema in PARAMETERS.items()]
NOTHING = {"type": "object", "additionalProperties": False}
VALIDATORS = {
    name: jsonschema_rs.Draft202012Validator(schema or NOTHING)
    for name, schema in PARAMETERS.items()
}
MARKUP = [
    *("</parameter>", "\n</parameter>", "<parameter=b>", "</function>", "</arg_value>"),
    *("<tool_call>", "</tool_call>", "<|end|>", "<escape>", '<|"|>'),
    *('"}}', "}", '"', "\\", ";", "[", "]", "```", "\n", "é", "e999"),
]
BRACKETS = ['"', "}", "]", "\n"]


def written(grammar: Grammar, rng: random.Random, closers: Sequence[str]) -> str | None:
    """A text that the grammar allows; `None` if it did not end.

    Args:
        grammar: Of calls.
        rng: Chooses what comes next.
        closers: What is tried often once the text is long.
    """
    matcher = grammar.start()
    mask = np.zeros(-(-TOKENIZER.vocab_size // 32), dtype=np.int32)
    text = bytearray()
    while len(text) < MAX_BYTES:
        if matcher.is_finished:
            return text.decode()
        is_late = len(text) > 60 and rng.random() < 0.5
        if is_late or rng.random() < 0.06:
            for byte in rng.choice(closers if is_late else MARKUP).encode():
                matcher.fill_bitmask(mask)
                if not is_allowed(mask, byte):
                    break
                assert matcher.accept(byte)
                text.append(byte)
            continue
        matcher.fill_bitmask(mask)
        ids = allowed_ids(mask)
        if END in ids and (len(ids) == 1 or rng.random() < 0.2):
            return text.decode()
        shown = [token_id for token_id in ids if 32 <= token_id < 127]
        token_id = rng.choice(shown or [i for i in ids if i != END])
        assert matcher.accept(token_id)
        text += TOKENIZER.token_bytes(token_id)
    return None


@pytest.mark.parametrize("family", [*JSON_FAMILIES, *ELEMENTS])
def test_whatever_may_be_written_is_read_as_calls_that_conform(family: str) -> None:
    """No text, no call of nothing, no arguments but such as the schema allows."""
    parser = TOOL_FAMILIES[family].make(TOOLS)
    assert parser.syntax
    grammar = FACTORY.compile(
        tool_constraint(parser.syntax, TOOLS, control_tokens={}, must_call=True, is_single=True)
    )
    elements = parser.syntax.elements
    closers = [*BRACKETS, parser.syntax.after_arguments]
    closers += [elements.after_value, elements.closing_tag] if elements else []
    rng = random.Random(family)  # noqa: S311 - the same texts every time
    texts = [text for _ in range(NUM_TEXTS) if (text := written(grammar, rng, closers)) is not None]
    assert texts
    for text in texts:
        start, *arguments, end = read(parser, text)
        assert isinstance(start, CallStart), text
        assert isinstance(end, CallEnd), text
        told = "".join(piece.text for piece in arguments if isinstance(piece, CallArguments))
        assert VALIDATORS[start.name].is_valid(json.loads(told, parse_float=_finite)), text


def _finite(text: str) -> float:
    """A number, whatever its exponent; what is infinite is none to the validator."""
    return max(-sys.float_info.max, min(float(text), sys.float_info.max))
