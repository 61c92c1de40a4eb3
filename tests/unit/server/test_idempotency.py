"""Idempotency keys: one request at a time, its answer for a while, within bounds."""

import asyncio
from dataclasses import dataclass

import pytest

from provider_core.billing_settings import IdempotencySettings
from provider_core.errors import Conflict, InvalidRequest
from provider_core.server.idempotency import Claim, IdempotencyKeys, StoredAnswer, digest_of

ASKED = digest_of(b"what")
ID = "gen-01JD5Z7Q3M8W9X0Y1Z2A3B4C5D"


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


def keys_of(clock: HandClock | None = None, **settings: int) -> IdempotencyKeys:
    """Keys with some settings."""
    return IdempotencyKeys(IdempotencySettings(**settings), clock or HandClock())


def begin(keys: IdempotencyKeys, key: str, question: bytes = ASKED, who: str = "key_1") -> Claim:
    """Claim a key that nobody has."""
    claim = keys.claim(who, key, question)
    assert isinstance(claim, Claim)
    return claim


def answer(keys: IdempotencyKeys, key: str, body: bytes = b"answer", who: str = "key_1") -> None:
    """Claim a key and answer."""
    claim = begin(keys, key, who=who)
    claim.keep(ID, body)
    claim.release()


def refusal(keys: IdempotencyKeys, key: str, question: bytes = ASKED) -> str | None:
    """Why a key cannot be claimed."""
    with pytest.raises(Conflict) as refused:
        keys.claim("key_1", key, question)
    return refused.value.code


async def test_an_answer_is_found_by_whoever_asked_and_by_nobody_else() -> None:
    """Under the same key and for the same question."""
    keys = keys_of()
    answer(keys, "a", b'{"id":1}')

    found = keys.claim("key_1", "a", ASKED)
    assert found == StoredAnswer(ID, {"Content-Type": "application/json"}, b'{"id":1}')
    assert refusal(keys, "a", digest_of(b"else")) == "idempotency_conflict"
    begin(keys, "a", who="key_2")
    begin(keys, "b")


def test_a_request_that_runs_is_not_run_twice() -> None:
    """Neither for its own question nor for another, until it is over."""
    keys = keys_of()
    claim = begin(keys, "a")
    assert refusal(keys, "a") == "idempotency_in_progress"
    assert refusal(keys, "a", digest_of(b"else")) == "idempotency_conflict"
    claim.release()
    begin(keys, "a")


async def test_a_stream_is_kept_with_its_end_and_without_attempts_before_it() -> None:
    """What a first model had begun to say is no part of the second one's answer."""
    keys = keys_of()
    claim = begin(keys, "a")
    written: list[bytes] = []

    def write(event: bytes) -> bool:
        written.append(event)
        return len(written) < 3

    assert claim.copied(write)(b"lost ")
    again = claim.copied(write)
    assert [again(b"one "), again(b"two ")] == [True, False]
    claim.keep(ID, b"end", {"Content-Type": "text/event-stream"})
    claim.release()

    found = keys.claim("key_1", "a", ASKED)
    assert found == StoredAnswer(ID, {"Content-Type": "text/event-stream"}, b"one two end")
    assert written == [b"lost ", b"one ", b"two "]


async def test_an_answer_that_had_to_go_is_not_made_again() -> None:
    """The oldest go first, and one that is too large at once; their keys stay."""
    keys = keys_of(max_bytes=10)
    for key in ("a", "b", "c"):
        answer(keys, key, b"12345")
    answer(keys, "large", b"12345678901")

    assert keys.size == 10
    assert [refusal(keys, key) for key in ("a", "large")] == ["idempotency_answer_dropped"] * 2
    with pytest.raises(Conflict, match=ID):
        keys.claim("key_1", "a", ASKED)
    assert isinstance(keys.claim("key_1", "b", ASKED), StoredAnswer)


async def test_more_keys_than_may_be_remembered_forget_the_oldest() -> None:
    """With its answer; those that run are not counted."""
    keys = keys_of(max_keys=2)
    running = begin(keys, "running")
    for key in ("a", "b", "c"):
        answer(keys, key)

    assert keys.size == 2 * len(b"answer")
    begin(keys, "a")
    assert isinstance(keys.claim("key_1", "c", ASKED), StoredAnswer)
    running.keep(ID, b"late")
    running.release()
    begin(keys, "b")


async def test_whoever_holds_most_is_forgotten_first() -> None:
    """However many one client names, the few of another are not run again."""
    keys = keys_of(max_keys=5)
    for key in ("a", "b"):
        answer(keys, key, who="key_2")
    for number in range(100):
        answer(keys, f"x{number}")

    assert keys.size == 5 * len(b"answer")
    for key in ("a", "b"):
        assert isinstance(keys.claim("key_2", key, ASKED), StoredAnswer)
    for number in (97, 98, 99):
        assert isinstance(keys.claim("key_1", f"x{number}", ASKED), StoredAnswer)
    begin(keys, "x96")


async def test_a_key_is_forgotten_after_its_time() -> None:
    """A day, by default; to the second."""
    clock = HandClock()
    keys = keys_of(clock)
    answer(keys, "a")
    clock.seconds = 86_399.0
    answer(keys, "b")
    assert isinstance(keys.claim("key_1", "a", ASKED), StoredAnswer)
    clock.seconds = 86_400.0
    begin(keys, "a")
    assert isinstance(keys.claim("key_1", "b", ASKED), StoredAnswer)
    assert keys.size == len(b"answer")


async def test_an_answer_is_forgotten_in_time_though_nobody_asks() -> None:
    """Whatever a client said, its answer is kept no longer than was promised."""
    keys = IdempotencyKeys(IdempotencySettings(retention_s=0.01))
    answer(keys, "a")
    answer(keys, "b")
    assert keys.size == 2 * len(b"answer")
    while keys.size:  # noqa: ASYNC110 - a timer of the loop's
        await asyncio.sleep(0)
    begin(keys, "a")


@pytest.mark.parametrize("key", ["", "a b", "é", "a\udce9", "x" * 256, "\t"])
def test_what_is_no_key_is_refused(key: str) -> None:
    """Before anything runs."""
    with pytest.raises(InvalidRequest, match="idempotency-key"):
        keys_of().claim("key_1", key, ASKED)


def test_digests_tell_where_parts_end() -> None:
    """What moves from one part to the next is another question."""
    assert digest_of(b"ab", b"c") != digest_of(b"a", b"bc") != digest_of(b"abc")
    assert digest_of("a", "\ud800") != digest_of("a", "\ud801")
