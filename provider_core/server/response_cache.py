"""Whole answers, kept for requests that repeat one, if the client asks for it.

What is kept are a generation's events, so that a repeated answer leaves through the same encoder
as the first, under an id of its own. Nothing is kept of a failure or of half an answer, and nobody
waits for another's answer. A model that is loaded anew repeats nothing of the one before, though
both have one name. Off by default: answers stay in memory for as long as clients say, and no
longer.
"""

import asyncio
import hashlib
import re
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from aiohttp import web

from provider_core.interfaces import Clock
from provider_core.text.events import Event, Finished, PromptEcho, ToolCallDelta, ToolCallStart
from provider_core.types import TokenLogprobs, UsageRecord

DEFAULT_TTL_S = 300
MAX_TTL_S = 86400
HEADERS = web.RequestKey("cache_headers", dict[str, str])
"""What the answer of a request says of the cache."""

_EVENT_BYTES = 256  # an event, its strings' heads and its place in the list
_LOGPROB_BYTES = 160
_CHARACTER_BYTES = 4  # at most
_LEADING_DIGITS = re.compile(r"\s*([0-9]{1,9})")


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheOptions:
    """What a request's headers ask.

    Attributes:
        ttl_s: How long its answer may be repeated.
        clears: Forget what is kept, and answer anew.
    """

    ttl_s: int = DEFAULT_TTL_S
    clears: bool = False


def read_options(headers: Mapping[str, str]) -> CacheOptions | None:
    """Read `X-OpenRouter-Cache` and its companions; `None` if nothing is asked."""
    if headers.get("X-OpenRouter-Cache", "").strip().lower() != "true":
        return None
    ttl_s = DEFAULT_TTL_S
    digits = _LEADING_DIGITS.match(headers.get("X-OpenRouter-Cache-TTL", ""))
    if digits is not None:
        ttl_s = min(max(int(digits[1]), 1), MAX_TTL_S)
    clears = headers.get("X-OpenRouter-Cache-Clear", "").strip().lower() == "true"
    return CacheOptions(ttl_s=ttl_s, clears=clears)


@dataclass(frozen=True, slots=True)
class StoredReply:
    """An answer that went well.

    Attributes:
        generation_id: Of the generation that was billed for it.
        events: Of all choices, in the order they came.
        stored_s: On the monotonic clock, like `expires_s`.
        size: Bytes, about.
    """

    generation_id: str
    events: Sequence[Event]
    stored_s: float
    expires_s: float
    size: int

    @property
    def finishes(self) -> list[Finished]:
        """The ends of its choices."""
        return [event for event in self.events if isinstance(event, Finished)]


class ResponseCache:
    """Answers by what was asked, the least recently used of them forgotten first.

    One per server, on the loop's thread.

    Args:
        max_bytes: Of all answers together, about; 0 keeps none.
        clock: The time.
    """

    def __init__(self, max_bytes: int, clock: Clock = time) -> None:
        self._max_bytes = max_bytes
        self._clock = clock
        self._replies: OrderedDict[bytes, StoredReply] = OrderedDict()
        self._timers: dict[bytes, asyncio.TimerHandle] = {}  # no answer outlives its time
        self._size = 0

    @property
    def is_enabled(self) -> bool:
        """Whether anything can be kept."""
        return self._max_bytes > 0

    @property
    def size(self) -> int:
        """Bytes of all answers, about."""
        return self._size

    def now(self) -> float:
        """The monotonic clock."""
        return self._clock.monotonic()

    def find(self, key: bytes) -> StoredReply | None:
        """The answer to a request that was asked before and may be repeated still."""
        reply = self._replies.get(key)
        if reply is None:
            return None
        if reply.expires_s <= self.now():
            self.forget(key)
            return None
        self._replies.move_to_end(key)
        return reply

    def store(self, key: bytes, reply: StoredReply) -> None:
        """Keep an answer, if it is not larger than everything that may be kept."""
        self.forget(key)
        if reply.size > self._max_bytes:
            return
        self._replies[key] = reply
        self._size += reply.size
        left_s = reply.expires_s - self.now()
        self._timers[key] = asyncio.get_running_loop().call_later(left_s, self.forget, key)
        while self._size > self._max_bytes:
            self.forget(next(iter(self._replies)))

    def forget(self, key: bytes) -> None:
        """Drop an answer, if there is one."""
        reply = self._replies.pop(key, None)
        if reply is not None:
            self._size -= reply.size
            self._timers.pop(key).cancel()

    def slot(
        self, request: web.Request, body: Mapping[str, Any], *, api_key_id: str, route: str
    ) -> "CacheSlot | None":
        """The place of a request's answer, if its headers ask for one and there are any.

        Args:
            request: Its headers ask.
            body: What is asked, its properties in the client's order.
            api_key_id: Who asks.
            route: The path's template.
        """
        options = read_options(request.headers) if self.is_enabled else None
        if options is None:
            return None
        parts = (api_key_id.encode(), route.encode(), orjson.dumps(body))
        slot = CacheSlot(self, hashlib.sha256(b"\0".join(parts)).digest(), options)
        request[HEADERS] = slot.headers
        return slot


class CacheSlot:
    """One request's place in the cache: looked into before it runs, filled when it has.

    Args:
        cache: Where.
        question: What is asked, and by whom.
        options: How long.

    Attributes:
        headers: What the answer says of the cache.
    """

    def __init__(self, cache: ResponseCache, question: bytes, options: CacheOptions) -> None:
        self._cache = cache
        self._question = question
        self._key: bytes | None = None  # the question and the model, once that is known
        self._options = options
        self._events: list[Event] = []
        self.headers = {
            "X-OpenRouter-Cache-Status": "MISS",
            "X-OpenRouter-Cache-TTL": str(options.ttl_s),
        }

    def find(self, load_id: bytes) -> StoredReply | None:
        """The stored answer; the headers then say so.

        Args:
            load_id: Of the model that answers; only its own answers are repeated.
        """
        self._key = self._question + load_id
        if self._options.clears:
            self._cache.forget(self._key)
            return None
        reply = self._cache.find(self._key)
        if reply is not None:
            now_s = self._cache.now()
            self.headers.update(
                {
                    "X-OpenRouter-Cache-Status": "HIT",
                    "X-OpenRouter-Cache-Age": str(int(now_s - reply.stored_s)),
                    "X-OpenRouter-Cache-TTL": str(max(int(reply.expires_s - now_s), 1)),
                    "X-OpenRouter-Cache-Source-Id": reply.generation_id,
                }
            )
        return reply

    def take(self, event: Event) -> None:
        """Note an event of the answer."""
        self._events.append(event)

    def finish(self, record: UsageRecord) -> None:
        """Keep the answer, if it went well."""
        is_good = record.status == "ok" and record.event["finish_reason"] != "error"
        if self._key is None or not is_good:
            return
        now_s = self._cache.now()
        reply = StoredReply(
            record.generation_id,
            self._events,
            stored_s=now_s,
            expires_s=now_s + self._options.ttl_s,
            size=sum(map(_size_of, self._events)),
        )
        self._cache.store(self._key, reply)


async def add_headers(request: web.Request, response: web.StreamResponse) -> None:
    """Say of the cache what is to be said; for `Application.on_response_prepare`."""
    headers = request.get(HEADERS)
    if headers is not None and response.status == 200:
        response.headers.update(headers)


def _size_of(event: Event) -> int:
    size = _EVENT_BYTES
    match event:
        case Finished():
            return size
        case PromptEcho():
            pass
        case ToolCallDelta():
            size += _CHARACTER_BYTES * len(event.arguments)
        case ToolCallStart():
            size += _CHARACTER_BYTES * (len(event.name) + len(event.call_id))
        case _:
            size += _CHARACTER_BYTES * len(event.text)
    return size + sum(map(_size_of_logprobs, event.logprobs))


def _size_of_logprobs(logprobs: TokenLogprobs) -> int:
    return _LOGPROB_BYTES * (1 + len(logprobs.top))
