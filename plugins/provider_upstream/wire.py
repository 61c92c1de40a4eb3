"""The upstream's wire, as pure functions: `/v1/completions`, streamed, with ids for text.

The fields beyond OpenAI's are vLLM's (vllm/entrypoints/openai/completion/protocol.py):
`return_token_ids` gives each chunk's ids, `return_tokens_as_token_ids` writes the tokens of log
probabilities as `token_id:N`, `stop_reason` says which stop token ended a text.
"""

import hashlib
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from aiohttp import StreamReader

from provider_core import BackendError, GenerationRequest, TokenLogprobs
from provider_upstream.settings import Dialect

DONE = b"[DONE]"
MAX_EVENT_BYTES = 2**20
VLLM_ONLY = frozenset(
    {
        "ignore_eos",
        "logprobs",
        "min_p",
        "min_tokens",
        "repetition_penalty",
        "stop_token_ids",
        "top_k",
    }
)
"""Sampling that OpenAI's own fields cannot say; log probabilities have no ids there."""

_ID_PREFIX = "token_id:"


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """One event of a stream.

    Attributes:
        text: What it adds, for an upstream that gives no ids.
        token_ids: The same as ids; `None` if the upstream gives none.
        logprobs: One entry for each id, if they were asked for.
        finish_reason: As the upstream spells it, if this ends the text.
        stop_token_id: Which stop token ended it, if the upstream says.
        num_cached_tokens: Of the prompt, 0 or more, if this event holds the usage.
    """

    text: str = ""
    token_ids: tuple[int, ...] | None = None
    logprobs: tuple[TokenLogprobs, ...] = ()
    finish_reason: str | None = None
    stop_token_id: int | None = None
    num_cached_tokens: int = 0


def request_body(request: GenerationRequest, model: str, dialect: Dialect) -> bytes:
    """A request as the upstream reads it.

    Every field is said, however neutral: servers fill what is missing from a model's own defaults.

    Args:
        request: What to generate.
        model: The upstream's name for the model.
        dialect: Which fields it takes.
    """
    sampling = request.sampling
    body: dict[str, Any] = {
        "model": model,
        "prompt": request.prompt_token_ids,
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_tokens": sampling.max_tokens,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "frequency_penalty": sampling.frequency_penalty,
        "presence_penalty": sampling.presence_penalty,
    }
    if sampling.seed is not None:
        body["seed"] = sampling.seed - 2**64 * (sampling.seed >= 2**63)  # signed
    if sampling.logit_bias:
        body["logit_bias"] = {str(token_id): bias for token_id, bias in sampling.logit_bias}
    if dialect == "vllm":
        body |= _vllm_fields(request)
    return orjson.dumps(body)


def _vllm_fields(request: GenerationRequest) -> dict[str, Any]:
    sampling = request.sampling
    stop_token_ids = sampling.stop_token_ids
    if not sampling.ignore_eos:  # ours may be more than the upstream knows of
        stop_token_ids |= request.eos_token_ids
    fields: dict[str, Any] = {
        "top_k": sampling.top_k,
        "min_p": sampling.min_p,
        "repetition_penalty": sampling.repetition_penalty,
        "min_tokens": sampling.min_tokens,
        "ignore_eos": sampling.ignore_eos,
        "stop_token_ids": sorted(stop_token_ids),
        "return_token_ids": True,
    }
    if sampling.logprobs is not None:
        fields |= {"logprobs": sampling.logprobs, "return_tokens_as_token_ids": True}
    if request.cache_salt:  # which names a tenant
        fields["cache_salt"] = hashlib.sha256(request.cache_salt.encode()).hexdigest()
    return fields


async def events(content: StreamReader) -> AsyncIterator[bytes]:
    """The data of each server-sent event, as soon as its line is complete.

    Raises:
        BackendError: A line has no end.
    """
    rest = b""
    async for received in content.iter_any():
        *lines, rest = (rest + received).split(b"\n")
        for line in lines:
            if line.startswith(b"data:"):
                yield line[5:].strip()
        if len(rest) > MAX_EVENT_BYTES:
            raise BackendError("the upstream sent an event that is too long")


def read_chunk(event: bytes, num_logprobs: int | None = None) -> Chunk:
    """Read one event that is not `DONE`.

    Args:
        event: Its data.
        num_logprobs: How many alternatives were asked for; `None` for no log probabilities.

    Raises:
        BackendError: It is an error, or nothing that belongs to a completion.
    """
    try:
        body = orjson.loads(event)
        if "error" in body:
            raise BackendError("the upstream failed while it answered")
        usage = body.get("usage") or {}
        cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
        if type(cached) is not int or cached < 0:
            raise BackendError("the upstream's number of cached tokens is none")
        if not body["choices"]:
            return Chunk(num_cached_tokens=cached)
        return _read_choice(body["choices"][0], num_logprobs, cached)
    except (ValueError, TypeError, KeyError, AttributeError, IndexError) as error:
        raise BackendError("the upstream sent what is no chunk of a completion") from error


def _read_choice(choice: Mapping[str, Any], num_logprobs: int | None, cached: int) -> Chunk:
    token_ids = choice.get("token_ids")
    stop_reason = choice.get("stop_reason")
    return Chunk(
        text=choice.get("text") or "",
        token_ids=None if token_ids is None else tuple(map(int, token_ids)),
        logprobs=() if num_logprobs is None else _read_logprobs(choice["logprobs"], num_logprobs),
        finish_reason=choice.get("finish_reason"),
        stop_token_id=stop_reason if isinstance(stop_reason, int) else None,
        num_cached_tokens=cached,
    )


def _read_logprobs(found: Mapping[str, Any] | None, count: int) -> tuple[TokenLogprobs, ...]:
    if found is None:  # a chunk without ids
        return ()
    tokens: Sequence[str] = found["tokens"]
    alternatives = found.get("top_logprobs") or [None] * len(tokens)
    return tuple(
        TokenLogprobs(_token_id(token), logprob, _most_likely(others or {}, count))
        for token, logprob, others in zip(
            tokens, found["token_logprobs"], alternatives, strict=True
        )
    )


def _most_likely(logprobs: Mapping[str, float], count: int) -> tuple[tuple[int, float], ...]:
    """The likeliest; the upstream adds the chosen token where that is none of them."""
    ordered = sorted(logprobs.items(), key=lambda item: -item[1])
    return tuple((_token_id(token), logprob) for token, logprob in ordered[:count])


def _token_id(token: str) -> int:
    return int(token.removeprefix(_ID_PREFIX))
