"""The store of answers: bounded, forgetful, and read from headers with care."""

import asyncio
from dataclasses import dataclass

import pytest

from provider_core.server.response_cache import (
    CacheOptions,
    CacheSlot,
    ResponseCache,
    StoredReply,
    _size_of,
    read_options,
)
from provider_core.text.events import Finished, TextDelta, ToolCallDelta, ToolCallStart
from provider_core.types import TokenLogprobs


@dataclass
class HandClock:
    """Stands still until moved."""

    seconds: float = 0.0

    def time(self) -> float:
        """Unix seconds."""
        return self.seconds

    def monotonic(self) -> float:
        """The same."""
        return self.seconds


def reply(size: int, expires_s: float = 10.0) -> StoredReply:
    """An answer of a size."""
    return StoredReply("gen-1", [], stored_s=0.0, expires_s=expires_s, size=size)


@pytest.mark.parametrize(
    ("headers", "options"),
    [
        ({}, None),
        ({"X-OpenRouter-Cache": "false"}, None),
        ({"X-OpenRouter-Cache-TTL": "9"}, None),
        ({"X-OpenRouter-Cache": "TRUE"}, CacheOptions(ttl_s=300)),
        ({"X-OpenRouter-Cache": "true", "X-OpenRouter-Cache-TTL": "60abc"}, CacheOptions(ttl_s=60)),
        ({"X-OpenRouter-Cache": "true", "X-OpenRouter-Cache-TTL": "1.5"}, CacheOptions(ttl_s=1)),
        ({"X-OpenRouter-Cache": "true", "X-OpenRouter-Cache-TTL": "0"}, CacheOptions(ttl_s=1)),
        (
            {"X-OpenRouter-Cache": "true", "X-OpenRouter-Cache-TTL": "9" * 400},
            CacheOptions(ttl_s=86400),
        ),
        ({"X-OpenRouter-Cache": "true", "X-OpenRouter-Cache-TTL": "-5"}, CacheOptions(ttl_s=300)),
        (
            {"X-OpenRouter-Cache": "true", "X-OpenRouter-Cache-Clear": "true"},
            CacheOptions(clears=True),
        ),
    ],
)
def test_headers_are_read_as_documented(
    headers: dict[str, str], options: CacheOptions | None
) -> None:
    """Leading digits count, the range is held, anything else is the default."""
    assert read_options(headers) == options


async def test_the_least_recently_used_answer_goes_first() -> None:
    """And the sum stays within the limit."""
    cache = ResponseCache(100, HandClock())
    cache.store(b"a", reply(40))
    cache.store(b"b", reply(40))
    cache.find(b"a")
    cache.store(b"c", reply(40))

    assert cache.find(b"b") is None
    assert cache.find(b"a") is not None
    assert cache.size == 80


async def test_an_answer_that_is_too_large_is_not_kept() -> None:
    """Nor does it drive out the others; its own older one goes."""
    cache = ResponseCache(100, HandClock())
    cache.store(b"a", reply(40))
    cache.store(b"b", reply(40))
    cache.store(b"a", reply(101))

    assert cache.find(b"a") is None
    assert cache.find(b"b") is not None
    assert cache.size == 40


async def test_an_answer_is_forgotten_when_its_time_is_over() -> None:
    """With its memory."""
    clock = HandClock()
    cache = ResponseCache(100, clock)
    cache.store(b"a", reply(40, expires_s=10))
    clock.seconds = 9.999
    assert cache.find(b"a") is not None
    clock.seconds = 10.0

    assert cache.find(b"a") is None
    assert cache.size == 0


async def test_an_answer_is_forgotten_in_time_though_nobody_asks() -> None:
    """A kept answer is a retained one: none stays longer than its client said."""
    cache = ResponseCache(100)
    cache.store(b"a", reply(40, expires_s=cache.now() + 3600))
    cache.store(b"b", reply(40, expires_s=cache.now() + 0.01))
    while cache.size > 40:  # noqa: ASYNC110 - a timer of the loop's
        await asyncio.sleep(0)

    assert cache.find(b"a") is not None
    cache.store(b"a", reply(30, expires_s=cache.now()))
    while cache.size:  # noqa: ASYNC110 - a timer of the loop's
        await asyncio.sleep(0)


async def test_the_time_of_an_answer_is_its_own() -> None:
    """A later answer to the same question outlives the end of the one before."""
    cache = ResponseCache(100)
    cache.store(b"a", reply(40, expires_s=cache.now() + 0.01))
    cache.store(b"a", reply(40, expires_s=cache.now() + 3600))
    cache.store(b"b", reply(30, expires_s=cache.now() + 0.02))
    while cache.size == 70:  # noqa: ASYNC110 - a timer of the loop's
        await asyncio.sleep(0)

    assert cache.find(b"a") is not None


async def test_a_repeated_answer_says_how_old_it_is() -> None:
    """And how long it may still be repeated."""
    clock = HandClock()
    cache = ResponseCache(100, clock)
    cache.store(b"a", reply(40, expires_s=10.0))
    clock.seconds = 3.5
    slot = CacheSlot(cache, b"a", CacheOptions(ttl_s=300))

    assert slot.find(b"") is not None
    assert slot.headers == {
        "X-OpenRouter-Cache-Status": "HIT",
        "X-OpenRouter-Cache-Age": "3",
        "X-OpenRouter-Cache-TTL": "6",
        "X-OpenRouter-Cache-Source-Id": "gen-1",
    }


def test_the_size_counts_everything_an_event_holds() -> None:
    """Text, calls and log probabilities."""
    plain = _size_of(TextDelta(0, "x"))
    with_logprobs = TextDelta(0, "x", (TokenLogprobs(1, -1.0, ((1, -1.0), (2, -2.0))),))

    assert _size_of(TextDelta(0, "x" * 101)) == plain + 400
    assert _size_of(with_logprobs) > plain
    assert _size_of(ToolCallDelta(0, 0, "x" * 100)) > plain
    assert _size_of(ToolCallStart(0, 0, "call", "name")) > _size_of(Finished(0, "stop", "eos"))
