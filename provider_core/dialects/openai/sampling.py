"""Sampling fields of OpenAI's requests, to the form that all dialects share."""

from typing import Literal

from provider_core.dialects.openai.protocol import GenerationFields
from provider_core.dialects.sampling import PendingSampling, min_above_max
from provider_core.dialects.validation import MAX_ECHO, bad_value, wrong_type

MAX_STOPS = 4
MAX_STOP_BYTES = 256
MAX_LOGIT_BIAS = 1024


def pending_sampling(
    fields: GenerationFields,
    *,
    prompt_param: Literal["messages", "prompt", "input"],
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
        raise min_above_max(min_tokens, max_tokens)
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
