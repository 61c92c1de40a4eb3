"""Over HTTP from the host device: answers drawn from candidates are those of whole logits."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

import provider_tensorrt
from provider_core import Batch
from provider_tensorrt.runner import TensorRtRunner
from tests.integration.tensorrt.test_serve_host import make_served_folder, served_model
from tests.integration.test_tools import TOOLS
from tests.serving import HERMES, serving

WAYS: dict[str, dict[str, Any]] = {
    "greedy": {"temperature": 0},
    "logprobs": {"temperature": 0, "logprobs": True, "top_logprobs": 5},
    "seed": {"seed": 3},
    "nucleus": {"seed": 4, "top_p": 0.8, "logprobs": True},
    "tool": {"temperature": 0, "tools": TOOLS, "tool_choice": "required", "max_tokens": 150},
    "sampled tool": {"seed": 5, "tools": TOOLS, "tool_choice": "required", "max_tokens": 150},
    "bias": {"temperature": 0, "logit_bias": {"70": 3}},
}


async def ask_all(folder: Path) -> dict[str, Any]:
    """The choices of all answers, made side by side."""
    model = served_model(folder) | {"max_model_len": 1024}
    async with serving(plugins=(provider_tensorrt,), models=(model,)) as served:
        responses = await asyncio.gather(
            *(served.chat(**{"max_tokens": 16, **fields}) for fields in WAYS.values())
        )
        answers = [await response.json() for response in responses]
    for answer in answers:
        for call in answer["choices"][0]["message"].get("tool_calls") or []:
            del call["id"]  # a new one each time
    return {name: answer["choices"] for name, answer in zip(WAYS, answers, strict=True)}


def about(value: Any) -> Any:
    """What equals it, numbers as far as rounding leaves them alone."""
    match value:
        case dict():
            return {name: about(item) for name, item in value.items()}
        case list():
            return [about(item) for item in value]
        case float():
            return pytest.approx(value, abs=1e-4)
    return value


async def test_answers_are_those_of_whole_logits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tools that must be called, seeds and log probabilities; most rows stay where they are."""
    _, folder = make_served_folder(tmp_path, "qwen3", max_position_embeddings=1024)
    config = json.loads((folder / "tokenizer_config.json").read_text())
    config["chat_template"] = HERMES
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    num_rows = {"execute_model": 0, "execute_candidates": 0, "fetch_logits": 0}

    def count(name: str) -> None:
        original = getattr(TensorRtRunner, name)

        def counting(self: TensorRtRunner, what: Any, *arguments: Any) -> Any:
            num_rows[name] += len(what.slots) if isinstance(what, Batch) else len(what)
            return original(self, what, *arguments)

        monkeypatch.setattr(TensorRtRunner, name, counting)

    for name in num_rows:
        count(name)
    answers = await ask_all(folder)
    assert num_rows["execute_candidates"] > 100
    assert num_rows["fetch_logits"] < num_rows["execute_candidates"] / 2
    with monkeypatch.context() as patch:
        patch.setattr("provider_core.engine.execution.CandidateRunner", Exception)  # nobody is one
        num_rows["execute_candidates"] = 0
        expected = await ask_all(folder)
        assert num_rows["execute_candidates"] == 0
    assert answers == about(expected)
    assert answers["tool"][0]["finish_reason"] == "tool_calls"
