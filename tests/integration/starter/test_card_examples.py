"""What the built-in model's card says that it says is what it says."""

from pathlib import Path

import pytest

from provider_core import CardExample, ModelRunner, ModelSpec
from provider_onnxruntime import load_model
from provider_starter import MODEL_DIR
from provider_starter.card import CARD
from tests.serving import serving


def load(spec: ModelSpec) -> ModelRunner:
    """The built-in model's runner."""
    runner = load_model(spec, Path(spec.source))
    assert isinstance(runner, ModelRunner)
    return runner


@pytest.mark.parametrize("example", CARD.examples, ids=lambda example: example.prompt)
async def test_an_example_is_what_the_model_answers(example: CardExample) -> None:
    """With the parameters that the card recommends for facts."""
    model = {"id": "test-model", "source": str(MODEL_DIR), "max_model_len": 512}
    async with serving(load, models=(model,)) as served:
        response = await served.chat(example.prompt, **CARD.recommendations[0].parameters)
        body = await response.json()

    assert body["choices"][0]["message"]["content"] == example.answer
