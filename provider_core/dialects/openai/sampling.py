"""Sampling fields of a request: read without a model, completed with one.

A request is parsed before its prompt is counted, so parsing yields a `PendingSampling`. Only with
the number of prompt tokens and the model's limits does it become the engine's `SamplingParams`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from provider_core.dialects.openai.protocol import CompletionFields
from provider_core.dialects.openai.validation import MAX_ECHO, bad_value, wrong_type
from provider_core.errors import ContextLengthExceeded, InvalidRequest
from provider_core.types import SamplingParams

MAX_STOPS = 4
MAX_STOP_BYTES = 256
MAX_LOGIT_BIAS = 1024


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

    prompt_param: Literal["messages", "prompt"]
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


def pending_sampling(
    fields: CompletionFields,
    *,
    prompt_param: Literal["messages", "prompt"],
    max_tokens: int | None,
    logprobs: int | None,
    prompt_logprobs: int | None = None,
) -> PendingSampling:
    """Collect the sampling fields of a request.

    Raises:
        InvalidRequest: `logit_bias` is malformed, or `min_tokens` is above `max_tokens`.
    """
    min_tokens = fields.min_tokens or 0
    if max_tokens is not None and min_tokens > max_tokens:
        raise _min_above_max(min_tokens, max_tokens)
    return PendingSampling(
        prompt_param=prompt_param,
        max_tokens=max_tokens,
        min_tokens=min_tokens,
        temperature=_or(fields.temperature, 1.0),
        top_p=_or(fields.top_p, 1.0),
        top_k=max(fields.top_k or 0, 0),
        min_p=fields.min_p or 0.0,
        top_a=fields.top_a or 0.0,
        frequency_penalty=fields.frequency_penalty or 0.0,
        presence_penalty=fields.presence_penalty or 0.0,
        repetition_penalty=_or(fields.repetition_penalty, 1.0),
        logit_bias=parse_logit_bias(fields.logit_bias),
        seed=None if fields.seed is None else fields.seed % 2**64,
        logprobs=logprobs,
        prompt_logprobs=prompt_logprobs,
        stop_token_ids=frozenset(fields.stop_token_ids or ()),
        ignore_eos=bool(fields.ignore_eos),
    )


def to_sampling_params(
    pending: PendingSampling,
    *,
    num_prompt_tokens: int,
    max_model_len: int,
    max_output_tokens: int | None,
    vocab_size: int,
) -> SamplingParams:
    """Complete sampling with what the prompt and the model decide.

    `max_tokens` is clamped to the room left in the context and to `max_output_tokens`, `top_k` to
    the vocabulary.

    Raises:
        ContextLengthExceeded: The prompt leaves no room for one new token.
        InvalidRequest: A token id is outside the vocabulary, or `min_tokens` does not fit.
    """
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
        raise _min_above_max(pending.min_tokens, max_tokens)
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


def parse_stop(value: object) -> tuple[str, ...]:
    """Read `stop`: null, a string, or up to four.

    Raises:
        InvalidRequest: Another shape, an empty string, or too many or too long ones.
    """
    if value is None:
        return ()
    stops = [value] if isinstance(value, str) else value
    if not isinstance(stops, list):
        raise wrong_type("stop", "a string or an array of strings", value)
    if len(stops) > MAX_STOPS:
        raise bad_value("stop", f"must hold at most {MAX_STOPS} strings, not {len(stops)}")
    for stop in stops:
        if not isinstance(stop, str):
            raise wrong_type("stop", "a string or an array of strings", stop)
        if not stop:
            raise bad_value("stop", "must not hold an empty string")
        if len(stop) > MAX_STOP_BYTES or len(stop.encode()) > MAX_STOP_BYTES:
            raise bad_value("stop", f"must hold strings of at most {MAX_STOP_BYTES} bytes")
    return tuple(stops)


def parse_logit_bias(value: object) -> tuple[tuple[int, float], ...]:
    """Read `logit_bias`: null, or an object from token ids, as strings, to -100 to 100.

    Raises:
        InvalidRequest: Another shape, a key that is no id, a value out of range, or too many.
    """
    if value is None:
        return ()
    if not isinstance(value, dict):
        raise wrong_type("logit_bias", "an object", value)
    if len(value) > MAX_LOGIT_BIAS:
        raise bad_value("logit_bias", f"must hold at most {MAX_LOGIT_BIAS} entries")
    biases: dict[int, float] = {}
    for key, bias in value.items():
        # `isdecimal` alone accepts digits of every script, and so does `int`.
        if not (key.isascii() and key.isdecimal()) or len(key) > 10:
            raise bad_value("logit_bias", f"must have token ids as keys, not {key[:MAX_ECHO]!r}")
        if isinstance(bias, bool) or not isinstance(bias, int | float):
            raise wrong_type("logit_bias", "an object whose values are numbers", bias)
        if not -100 <= bias <= 100:
            raise bad_value("logit_bias", "must have values from -100 to 100")
        biases[int(key)] = float(bias)
    return tuple(biases.items())


def _or(value: float | None, default: float) -> float:
    return default if value is None else value


def _min_above_max(min_tokens: int, max_tokens: int) -> InvalidRequest:
    return bad_value("min_tokens", f"must be at most max_tokens ({max_tokens}), not {min_tokens}")
