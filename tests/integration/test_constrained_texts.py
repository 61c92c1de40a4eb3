"""Whatever a model makes of a schema is valid: random schemas, and models that know nothing.

The judge is another implementation of JSON Schema, jsonschema-rs.
"""

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema_rs
import numpy as np
import pytest

import provider_starter
from provider_core.engine.engine import LLMEngine
from provider_core.errors import InvalidRequest
from provider_core.interfaces import ModelRunner
from provider_core.testing import ScriptedRunner
from provider_core.text.grammar_compiler import GrammarFactory
from provider_core.text.tokenizer import FolderTokenizer, load_tokenizer
from provider_core.types import Constraint, EngineOutput, GenerationRequest, SamplingParams
from provider_onnxruntime import load_model
from tests.unit.text.byte_tokenizer import END, ByteTokenizer
from tests.unit.text.writing import write

_STARTER = Path(__file__).parents[2] / "plugins/provider_starter/model"
_FORMATS = ("date", "time", "date-time", "email", "hostname", "ipv4", "ipv6", "uri", "uuid")


class SchemaMaker:
    """Schemas of random keywords. Small, so that most random documents of them end.

    Args:
        seed: Of the choices.
    """

    def __init__(self, seed: int) -> None:
        self._random = np.random.default_rng(seed)

    def make(self, depth: int = 0) -> dict[str, Any]:
        """One schema."""
        makers: list[Callable[[int], dict[str, Any]]] = [self._string, self._number, self._fixed]
        if depth < 3:
            makers += [self._object, self._object, self._array, self._either]
        return makers[self._below(len(makers))](depth + 1)

    def _below(self, limit: int) -> int:
        return int(self._random.integers(limit))

    def _string(self, depth: int) -> dict[str, Any]:
        choices: list[dict[str, Any]] = [
            {"maxLength": self._below(6)},
            {"pattern": r"^[a-c]{1,3}-\d+$"},
            {"pattern": r"\w.?\S", "maxLength": 6},
            {"format": _FORMATS[self._below(len(_FORMATS))]},
        ]
        return {"type": "string", **choices[self._below(len(choices))]}

    def _number(self, depth: int) -> dict[str, Any]:
        low = self._below(200) - 100
        choices: list[dict[str, Any]] = [
            {"type": "integer", "minimum": low, "maximum": low + self._below(1000)},
            {"type": "number", "exclusiveMinimum": low, "maximum": low + 0.5 + self._below(9)},
            {"type": "integer", "multipleOf": 1 + self._below(7), "minimum": 0, "maximum": 5000},
        ]
        return choices[self._below(len(choices))]

    def _fixed(self, depth: int) -> dict[str, Any]:
        values: list[Any] = ["a b", "\u00e9\u20ac", 1.5, -3, None, True, {"x": [1]}, [], 'q"\\']
        self._random.shuffle(values)
        return {"enum": values[: 1 + self._below(4)]} if self._below(3) else {"const": values[0]}

    def _object(self, depth: int) -> dict[str, Any]:
        names = [f"{chr(97 + i)}{'/~' * self._below(2)}" for i in range(1 + self._below(4))]
        schema: dict[str, Any] = {
            "type": "object",
            "properties": {name: self.make(depth) for name in names},
            "required": [name for name in names if self._below(2)],
            "additionalProperties": False if self._below(3) else self._number(depth),
            "maxProperties": len(names) + 2,
        }
        if self._below(2):
            del schema["maxProperties"]
        return schema

    def _array(self, depth: int) -> dict[str, Any]:
        least = self._below(3)
        schema = {"type": "array", "items": self.make(depth), "minItems": least}
        if self._below(2):
            schema["prefixItems"] = [self.make(depth)]
        return schema | {"maxItems": least + 2}

    def _either(self, depth: int) -> dict[str, Any]:
        keyword = ("anyOf", "oneOf", "allOf")[self._below(3)]
        options = [self.make(depth), self.make(depth)]
        return {keyword: options[:1] if keyword == "allOf" else options}


@pytest.fixture(scope="module")
def bytes_factory() -> GrammarFactory:
    """For a vocabulary of bytes: every spelling is possible."""
    return GrammarFactory(ByteTokenizer(), frozenset({END}))


@pytest.fixture(scope="module")
def starter() -> FolderTokenizer:
    """The tokenizer of the built-in model: tokens of several characters."""
    return load_tokenizer(_STARTER)


@pytest.mark.parametrize("seed", range(150))
def test_random_documents_of_random_schemas_are_valid(
    bytes_factory: GrammarFactory, seed: int
) -> None:
    """Or the schema was refused."""
    schema = SchemaMaker(seed).make()
    try:
        grammar = bytes_factory.compile(Constraint(kind="json_schema", source=json.dumps(schema)))
    except InvalidRequest:
        return
    judge = jsonschema_rs.validator_for(schema, validate_formats=True)
    for text_seed in range(4):
        ids = write(grammar, vocab_size=ByteTokenizer.vocab_size, end=END, seed=text_seed)
        if ids is not None:
            judge.validate(json.loads(ByteTokenizer().decode(ids)))


_REPORT = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "when": {"type": "string", "format": "date-time"},
        "tags": {"type": "array", "items": {"enum": ["red", "green"]}, "maxItems": 3},
        "size": {"type": "integer", "minimum": 0, "maximum": 99},
    },
    "required": ["name", "when", "tags", "size"],
    "additionalProperties": False,
}


async def _generate(runner: ModelRunner, requests: list[GenerationRequest]) -> list[list[int]]:
    """Run requests side by side; the ids of each, once it has ended by itself."""
    engine = LLMEngine(runner)
    texts: list[list[int]] = [[] for _ in requests]
    ends: list[asyncio.Future[EngineOutput]] = []
    for request, ids in zip(requests, texts, strict=True):
        end = asyncio.get_running_loop().create_future()
        ends.append(end)

        def take(
            output: EngineOutput,
            ids: list[int] = ids,
            end: asyncio.Future[EngineOutput] = end,
        ) -> None:
            ids += output.token_ids
            if output.finish_reason is not None:
                end.set_result(output)

        engine.submit(request, take)
    outputs = await asyncio.gather(*ends)
    await engine.close()
    for request, output in zip(requests, outputs, strict=True):
        assert request.grammar is None or output.finish_reason == "stop"
    return texts


async def _judge_reports(
    runner: ModelRunner, tokenizer: FolderTokenizer, eos: int, *, temperature: float
) -> None:
    """Let a model write reports, beside rows that are free, and judge them."""
    factory = GrammarFactory(tokenizer, frozenset({eos}))
    grammar = factory.compile(Constraint(kind="json_schema", source=json.dumps(_REPORT)))
    requests = [
        GenerationRequest(
            request_id=str(i),
            prompt_token_ids=(1, 2, i + 3),
            sampling=SamplingParams(max_tokens=200, temperature=temperature, seed=i),
            eos_token_ids=frozenset({eos}),
            grammar=grammar if i % 4 else None,
        )
        for i in range(12)
    ]
    judge = jsonschema_rs.validator_for(_REPORT, validate_formats=True)
    for request, ids in zip(requests, await _generate(runner, requests), strict=True):
        if request.grammar is not None:
            judge.validate(json.loads(tokenizer.decode(ids)))


@pytest.mark.parametrize("temperature", [0.0, 1.0])
async def test_a_model_that_knows_nothing_writes_valid_documents(
    starter: FolderTokenizer, temperature: float
) -> None:
    """Random logits through the whole engine, for more ids than the tokenizer has."""
    runner = ScriptedRunner(vocab_size=starter.vocab_size + 40, num_distributions=31)
    eos = max(starter.special_token_ids)
    await _judge_reports(runner, starter, eos, temperature=temperature)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
async def test_the_built_in_model_writes_valid_documents(
    starter: FolderTokenizer, temperature: float
) -> None:
    """It was never asked for any; what it says without a schema is something else."""
    [spec] = provider_starter.register_models()
    runner = load_model(replace(spec, max_model_len=512, max_num_seqs=8), Path(spec.source))
    assert isinstance(runner, ModelRunner)
    runner.warm_up()
    (eos,) = starter.encode("<|im_end|>", allow_special=True)
    await _judge_reports(runner, starter, eos, temperature=temperature)


def test_s5_many_different_schemas_leave_no_memory_behind(bytes_factory: GrammarFactory) -> None:
    """What is compiled and not kept is gone: so many would else take three times the limit."""

    def compile_some(count: int, name: str) -> None:
        for i in range(count):
            schema = {"type": "object", "properties": {f"{name}{i}": {"type": "string"}}}
            bytes_factory.compile(Constraint(kind="json_schema", source=json.dumps(schema)))

    compile_some(100, "warm")
    before = _resident_bytes()
    compile_some(300, "more")
    assert _resident_bytes() - before < 4 * 2**20


def _resident_bytes() -> int:
    pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[1]
    return int(pages) * 4096
