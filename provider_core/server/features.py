"""What a served model can be asked for: the one place that says it, for every listing."""

from dataclasses import replace

from provider_core.server.models import Served, ServedEncoder
from provider_core.types import Feature, ModelSpec


def features(model: Served) -> frozenset[Feature]:
    """What requests to a model may ask for beside text."""
    found = set(model.spec.features)
    if isinstance(model, ServedEncoder):
        return frozenset(found)
    unsupported = model.spec.unsupported_params
    if "logprobs" not in unsupported:
        found.add("logprobs")
    if model.chat_template is not None:
        found.add("chat")
        if "grammar" not in unsupported:
            found |= {"json_mode", "structured_outputs"}
        if model.syntax.tools is not None:
            found.add("tools")
        if model.syntax.reasoning is not None:
            found.add("reasoning")
    return frozenset(found)


def listed(model: Served) -> ModelSpec:
    """The spec of a model as listings show it."""
    inputs, outputs = model.spec.input_modalities, model.spec.output_modalities
    if isinstance(model, ServedEncoder):
        outputs = ("embeddings",) if model.engine.info.task == "embed" else ("rerank",)
    elif model.image_encoder is not None:
        inputs = tuple(dict.fromkeys((*inputs, "image")))
    return replace(
        model.spec,
        features=features(model),
        input_modalities=inputs,
        output_modalities=outputs,
    )
