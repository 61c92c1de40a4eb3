"""The built-in model: a small chat model that needs no download and no accelerator."""

from pathlib import Path

from provider_core import ModelSpec, hookimpl
from provider_starter.card import CARD

MODEL_DIR = Path(__file__).parent / "model"


@hookimpl
def register_models() -> list[ModelSpec]:
    """Serve the built-in model when the configuration names none."""
    return [
        ModelSpec(
            id="starter",
            source=str(MODEL_DIR),
            name="Starter",
            description="A 5 million parameter chat model for trying the server out.",
            languages=("en",),
            card=CARD,
        )
    ]
