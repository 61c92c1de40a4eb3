"""Sequences for tests of what schedules them."""

from provider_core.engine.sequence import Sequence, make_sequence
from provider_core.types import EngineOutput, GenerationRequest, SamplingParams


def new_sequence(
    name: str,
    *,
    length: int = 3,
    max_tokens: int = 10,
    key: str = "",
    prompt_logprobs: int | None = None,
) -> Sequence:
    """A sequence whose prompt is 0, 1, 2 and so on."""
    request = GenerationRequest(
        request_id=name,
        prompt_token_ids=tuple(range(length)),
        sampling=SamplingParams(max_tokens=max_tokens, prompt_logprobs=prompt_logprobs),
        fairness_key=key,
    )
    return make_sequence(request, _ignore, max_model_len=10_000)


def _ignore(output: EngineOutput) -> None:
    del output
