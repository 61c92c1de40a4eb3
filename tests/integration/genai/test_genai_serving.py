"""Models served from onnxruntime-genai's engine."""

import asyncio
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import provider_genai
import provider_onnxruntime
from provider_core import ConfigurationError, Encoder, Engine, EngineDead, ModelRunner, ModelSpec
from provider_core.errors import BackendError
from provider_core.testing import prefill_batch, submit
from provider_core.types import SamplingParams
from provider_genai.runtime import Runtime
from tests.genai_folders import write_genai_folder
from tests.serving import VOCAB_SIZE, Serving, serving

PROMPTS = ("a", "Once upon a time", "12 + 7 =", "banjo", "x" * 60)

Backend = ModelRunner | Engine | Encoder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random decoder for the tokenizer of single bytes; id 1 ends a text."""
    return write_genai_folder(tmp_path_factory.mktemp("genai") / "tiny", vocab_size=VOCAB_SIZE)


def loading(folder: Path, backend: str = "genai", **options: Any) -> Callable[[ModelSpec], Backend]:
    """A factory of this folder's model on a backend."""
    load = {"genai": provider_genai.load_model, "onnxruntime": provider_onnxruntime.load_model}

    def make(model: ModelSpec) -> Backend:
        loaded: Backend | None
        loaded = load[backend](replace(model, backend=backend, options=options), folder)
        assert loaded is not None
        return loaded

    return make


async def complete(served: Serving, prompt: str, **fields: Any) -> dict[str, Any]:
    """A greedy completion's choice, with its usage."""
    body = {"model": "test-model", "prompt": prompt, "temperature": 0, "max_tokens": 24, **fields}
    answer = await (await served.post("/v1/completions", body)).json()
    return {**answer["choices"][0], **answer["usage"]}


async def test_the_text_is_that_of_our_own_runner(folder: Path) -> None:
    """More at once than its engine takes, each as alone in the core's engine."""
    async with serving(loading(folder, "onnxruntime")) as served:
        expected = [await complete(served, prompt, ignore_eos=True) for prompt in PROMPTS]
    async with serving(loading(folder, intra_op_num_threads=1)) as served:
        asked = [complete(served, prompt, ignore_eos=True) for prompt in PROMPTS]
        actual = await asyncio.gather(*asked)

    assert [choice["text"] for choice in actual] == [choice["text"] for choice in expected]
    assert {choice["completion_tokens"] for choice in actual} == {24}


async def test_the_models_end_is_counted_and_not_shown(folder: Path, tmp_path: Path) -> None:
    """The runtime keeps the id to itself; a text can be told to go on past it."""
    runner = provider_onnxruntime.load_model(
        ModelSpec(id="x", source="x", max_model_len=64), folder
    )
    assert isinstance(runner, ModelRunner)
    first = int(runner.execute_model(prefill_batch(0, [97, 98]))[0].argmax())
    runner.close()
    ending = write_genai_folder(tmp_path / "ending", vocab_size=VOCAB_SIZE, eos_token_id=first)
    async with serving(loading(ending)) as served:
        body = {"model": "test-model", "prompt": [97, 98], "temperature": 0, "max_tokens": 9}
        ended = await (await served.post("/v1/completions", body)).json()
        beyond = await (await served.post("/v1/completions", {**body, "ignore_eos": True})).json()

    assert (ended["choices"][0]["text"], ended["choices"][0]["finish_reason"]) == ("", "stop")
    assert ended["usage"]["completion_tokens"] == 1
    assert beyond["choices"][0]["finish_reason"] == "length"
    assert beyond["usage"]["completion_tokens"] == 9


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"logprobs": True}, "logprobs"),
        ({"logit_bias": {"5": 1}}, "logit_bias"),
        ({"frequency_penalty": 0.5}, "frequency_penalty"),
        ({"min_p": 0.1}, "min_p"),
        ({"seed": 7}, "seed"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
    ],
)
async def test_what_the_runtime_lacks_is_refused_by_name(
    folder: Path, fields: dict[str, Any], param: str
) -> None:
    """Before anything is reserved. A seed needs batches that are not static."""
    async with serving(loading(folder)) as served:
        response = await served.chat(**fields)
        assert (response.status, (await response.json())["error"]["param"]) == (400, param)
        assert (await served.chat(max_tokens=2, temperature=0.7, top_k=5)).status == 200


async def test_a_broken_runtime_ends_everything(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Open sequences end with the error, later ones are refused, probes are told."""

    def fail(*_: object) -> None:
        raise EngineDead("onnxruntime-genai's engine has failed")

    engine = loading(folder)(ModelSpec(id="x", source="x", max_model_len=64))
    assert isinstance(engine, Engine)
    monkeypatch.setattr(Runtime, "step", fail)
    sampling = SamplingParams(max_tokens=4)
    recorder = submit(engine, "1", [5, 6], sampling)
    last = await recorder.result()

    assert (last.finish_reason, type(last.error)) == ("error", EngineDead)
    assert isinstance(last.error, BackendError)
    with pytest.raises(EngineDead, match="has failed"):
        engine.check_health()
    with pytest.raises(EngineDead):
        submit(engine, "2", [5, 6], sampling)
    await engine.close()


def test_what_cannot_be_loaded_stops_the_start(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each in one line that says what to do."""
    spec = ModelSpec(id="x", source="x", backend="genai", max_model_len=64)
    (tmp_path / "genai_config.json").write_bytes((folder / "genai_config.json").read_bytes())
    for changed, path, says in (
        (replace(spec, precision="int8"), folder, "as they are stored"),
        (spec, tmp_path, "cannot load"),
        (spec, tmp_path / "none", "holds no genai_config.json"),
    ):
        with pytest.raises(ConfigurationError, match=says):
            provider_genai.load_model(changed, path)
    monkeypatch.setitem(sys.modules, "onnxruntime_genai", None)
    with pytest.raises(ConfigurationError, match=r"install the extra \[genai\]"):
        provider_genai.load_model(spec, folder)
    assert provider_genai.load_model(replace(spec, backend=None), folder) is None
