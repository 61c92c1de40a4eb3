"""Sampling fields as every dialect hands them on: read without a model, completed with one.

A request is parsed before its prompt is counted, so parsing yields a `PendingSampling`. Only with
the number of prompt tokens and the model's limits does it become the engine's `SamplingParams`.
"""

from collections.abc import Container, Sequence
from dataclasses import dataclass, fields

from provider_core.dialects.validation import bad_value
from provider_core.errors import ContextLengthExceeded, InvalidRequest, UnsupportedParameter
from provider_core.types import SamplingParams


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingSampling:
    """Validated sampling fields with the defaults filled in, before the model's limits.

    Attributes:
        prompt_param: The field that holds the prompt, blamed when it is too long.
        max_tokens: As asked; `None` is up to what fits.
        top_k: 0 is off.
        logit_bias: Ids not yet checked against the vocabulary.
        seed: Folded into 0 to 2^64 - 1: a negative one counts from the top.
    """

    prompt_param: str
    max_tokens: int | None
    min_tokens: int = 0
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    top_a: float = 0.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    repetition_penalty: float = 1.0
    logit_bias: tuple[tuple[int, float], ...] = ()
    seed: int | None = None
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    stop_token_ids: frozenset[int] = frozenset()
    ignore_eos: bool = False


_DEFAULTS = {field.name: field.default for field in fields(PendingSampling)}


def to_sampling_params(
    pending: PendingSampling,
    *,
    num_prompt_tokens: int,
    max_model_len: int,
    max_output_tokens: int | None,
    vocab_size: int,
    unsupported_params: Container[str] = (),
) -> SamplingParams:
    """Complete sampling with what the prompt and the model decide.

    `max_tokens` is clamped to the room left in the context and to `max_output_tokens`, `top_k` to
    the vocabulary.

    Raises:
        UnsupportedParameter: The model's engine does not have one of the fields.
        ContextLengthExceeded: The prompt leaves no room for one new token.
        InvalidRequest: A token id is outside the vocabulary, or `min_tokens` does not fit.
    """
    for name, default in _DEFAULTS.items():
        if name in unsupported_params and getattr(pending, name) != default:
            raise UnsupportedParameter(f"{name} is not supported by this model", param=name)
    room = max_model_len - num_prompt_tokens
    if room < 1:
        raise ContextLengthExceeded(
            f"this model's maximum context length is {max_model_len} tokens, but the "
            f"{pending.prompt_param} resulted in {num_prompt_tokens} tokens, which leaves no room "
            "for a new one",
            param=pending.prompt_param,
        )
    max_tokens = room if max_output_tokens is None else min(room, max_output_tokens)
    if pending.max_tokens is not None:
        max_tokens = min(max_tokens, pending.max_tokens)
    if pending.min_tokens > max_tokens:
        raise min_above_max(pending.min_tokens, max_tokens)
    check_token_ids([token_id for token_id, _ in pending.logit_bias], "logit_bias", vocab_size)
    check_token_ids(tuple(pending.stop_token_ids), "stop_token_ids", vocab_size)
    return SamplingParams(
        max_tokens=max_tokens,
        min_tokens=pending.min_tokens,
        temperature=pending.temperature,
        top_p=pending.top_p,
        top_k=min(pending.top_k, vocab_size),
        min_p=pending.min_p,
        top_a=pending.top_a,
        frequency_penalty=pending.frequency_penalty,
        presence_penalty=pending.presence_penalty,
        repetition_penalty=pending.repetition_penalty,
        logit_bias=pending.logit_bias,
        seed=pending.seed,
        logprobs=pending.logprobs,
        prompt_logprobs=pending.prompt_logprobs,
        stop_token_ids=pending.stop_token_ids,
        ignore_eos=pending.ignore_eos,
    )


def check_token_ids(token_ids: Sequence[int], param: str, vocab_size: int) -> None:
    """Check ids that came from a client.

    Raises:
        InvalidRequest: One is not below `vocab_size`.
    """
    if token_ids and (min(token_ids) < 0 or max(token_ids) >= vocab_size):
        raise bad_value(param, f"must hold token ids from 0 to {vocab_size - 1}")


def min_above_max(min_tokens: int, max_tokens: int) -> InvalidRequest:
    """What to raise for a `min_tokens` that `max_tokens` does not leave room for."""
    return bad_value("min_tokens", f"must be at most max_tokens ({max_tokens}), not {min_tokens}")
