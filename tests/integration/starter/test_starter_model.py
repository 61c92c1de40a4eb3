"""The built-in model as it is shipped, against a plain forward pass of its trained weights."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tokenizers

import provider_starter
from provider_core import ModelRunner
from provider_onnxruntime import load_model
from provider_starter import MODEL_DIR
from tests.generation import generate_greedily, prefill_logits
from tests.reference_decoder import ReferenceDecoder

WEIGHTS_DIR = Path(provider_starter.__file__).parent / "recipe"
MAX_WHEEL_BYTES = 12_000_000
PROMPTS = ("What is 12 + 7?", "Say hello to Zoe.", "Spell banjo.", "Tell me a story about a fox.")


@pytest.fixture(scope="module")
def runner() -> Iterator[ModelRunner]:
    """The offered model, at its full length."""
    [spec] = provider_starter.register_models()
    runner = load_model(replace(spec, max_model_len=16_384), Path(spec.source))
    assert isinstance(runner, ModelRunner)
    runner.warm_up()
    yield runner
    runner.close()


@pytest.fixture(scope="module")
def prompts() -> list[list[int]]:
    """Single chat turns as ids."""
    tokenizer = tokenizers.Tokenizer.from_file(str(MODEL_DIR / "tokenizer.json"))
    turns = (f"<|im_start|>user\n{p}<|im_end|>\n<|im_start|>assistant\n" for p in PROMPTS)
    return [tokenizer.encode(turn, add_special_tokens=False).ids for turn in turns]


def test_greedy_tokens_equal_the_trained_weights(
    runner: ModelRunner, prompts: list[list[int]]
) -> None:
    """Sixty-four tokens of each answer, in one batch: each is the likeliest after those before."""
    reference = ReferenceDecoder(MODEL_DIR, WEIGHTS_DIR)
    for prompt, answer in zip(prompts, generate_greedily(runner, prompts, 64), strict=True):
        logits = reference.logits(prompt + answer[:-1])[len(prompt) - 1 :]
        assert answer == logits.argmax(axis=-1).tolist()


def test_logits_equal_the_trained_weights(runner: ModelRunner, prompts: list[list[int]]) -> None:
    """Within the rounding of float32, over a long context too."""
    reference = ReferenceDecoder(MODEL_DIR, WEIGHTS_DIR)
    text = (prompts[3] * 20)[:400]
    logits = prefill_logits(runner, 0, text)
    np.testing.assert_allclose(logits[0], reference.logits(text)[-1], atol=2e-3)


def test_it_is_small_enough_for_the_wheel() -> None:
    """Weights stored in 16 bits, embeddings once, no rotation tables."""
    assert (MODEL_DIR / "model.onnx").stat().st_size < MAX_WHEEL_BYTES
