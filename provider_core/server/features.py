"""What a served model can be asked for: the one place that says it, for every listing."""

from dataclasses import replace

from provider_core.server.models import Served, ServedEncoder
from provider_core.types import Feature, ModelSpec


def features(model: Served) -> frozenset[Feature]:
    """What requests to a model may ask for beside text."""
    found = set(model.spec.features)
    if isinstance(model, ServedEncoder):
        return frozenset(found)
    found.add("logprobs")
    if model.chat_template is not None:
        found.add("chat")
    return frozenset(found)


def listed(model: Served) -> ModelSpec:
    """The spec of a model as listings show it."""
    outputs = model.spec.output_modalities
    if isinstance(model, ServedEncoder):
        outputs = ("embeddings",) if model.engine.info.task == "embed" else ("rerank",)
    return replace(model.spec, features=features(model), output_modalities=outputs)
