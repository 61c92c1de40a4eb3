"""Asking twice and paying once: `Idempotency-Key`, R17 of the published policy.

A request that names a key of its client's own runs once. Who repeats it, because a connection broke
or a proxy timed out, gets the bytes of the first answer again: nothing runs, and there is no second
bill. While the first still runs, and for a key under which something else was asked, the repetition
is refused. An answer that went wrong or that nobody waited for is not kept: the repetition runs.

Keys and answers lie in memory, for a day at most. Answers that grow too many are dropped before
their keys are: a repetition is then refused, and not run and billed again. Of too many keys those
of the API key that holds most are forgotten first: nobody makes others pay twice.
"""

import asyncio
import hashlib
import re
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from provider_core.billing_settings import IdempotencySettings
from provider_core.errors import Conflict, InvalidRequest
from provider_core.interfaces import Clock

HEADER = "Idempotency-Key"
REPLAYED_HEADER = "Idempotent-Replayed"  # by which Stripe's clients tell, too
_KEY = re.compile(r"[\x21-\x7e]{1,255}")
_RETRY_AFTER_S = 1.0
_JSON_HEADERS = {"Content-Type": "application/json"}


@dataclass(frozen=True, slots=True)
class StoredAnswer:
    """What a client got, to the byte.

    Attributes:
        generation_id: That was billed for it.
        headers: Of the body: its type, and how it may be cached.
        body: Of a stream, all of its events.
    """

    generation_id: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class _Answered:
    """A key whose request was answered.

    Attributes:
        api_key_id: Who asked.
        question: Digest of what was asked.
        generation_id: Of the answer.
        expires_s: On the monotonic clock.
    """

    api_key_id: str
    question: bytes
    generation_id: str
    expires_s: float


class _Holdings:
    """What each API key holds; who holds most is found among the few counts that there are."""

    def __init__(self) -> None:
        self._names: dict[str, OrderedDict[bytes, None]] = {}  # by API key, the oldest first
        self._holders: dict[int, dict[str, None]] = {}  # API keys by how many names they hold

    def add(self, api_key_id: str, name: bytes) -> None:
        """It holds one more."""
        names = self._names.setdefault(api_key_id, OrderedDict())
        self._move(api_key_id, len(names), len(names) + 1)
        names[name] = None

    def remove(self, api_key_id: str, name: bytes) -> None:
        """It holds one less."""
        names = self._names[api_key_id]
        del names[name]
        self._move(api_key_id, len(names) + 1, len(names))
        if not names:
            del self._names[api_key_id]

    def oldest_of_greediest(self) -> bytes:
        """The first name of whoever holds most, of several the one that came to that first."""
        api_key_id = next(iter(self._holders[max(self._holders)]))
        return next(iter(self._names[api_key_id]))

    def _move(self, api_key_id: str, before: int, after: int) -> None:
        if before:
            del self._holders[before][api_key_id]
            if not self._holders[before]:
                del self._holders[before]
        if after:
            self._holders.setdefault(after, {})[api_key_id] = None


class IdempotencyKeys:
    """The keys that clients named, and what they got. One per server, on the loop's thread.

    Args:
        settings: How many, how large, for how long.
        clock: The time.
    """

    def __init__(self, settings: IdempotencySettings, clock: Clock = time) -> None:
        self._settings = settings
        self._clock = clock
        self._running: dict[bytes, bytes] = {}  # question by name
        self._answered: OrderedDict[bytes, _Answered] = OrderedDict()  # the oldest first
        self._holdings = _Holdings()  # the same, by whose they are
        self._bodies: OrderedDict[bytes, StoredAnswer] = OrderedDict()  # the same, those kept
        self._size = 0
        self._timer: asyncio.TimerHandle | None = None  # no answer outlives its time

    @property
    def is_enabled(self) -> bool:
        """Whether keys mean anything."""
        return self._settings.max_keys > 0

    @property
    def size(self) -> int:
        """Bytes of all answers."""
        return self._size

    def claim(self, api_key_id: str, key: str, question: bytes) -> "Claim | StoredAnswer":
        """Begin a request that names a key, or find what it was answered.

        Args:
            api_key_id: Who asks; the keys of others are others.
            key: As the client wrote it.
            question: Digest of everything that decides the answer.

        Returns:
            A claim, to be released when the request is over; or the answer of the first time.

        Raises:
            InvalidRequest: The key is none.
            Conflict: It stands for another request, for one that runs, or for one whose answer is
                kept no more.
        """
        if not _KEY.fullmatch(key):
            raise InvalidRequest(
                "idempotency-key must be 1 to 255 visible ASCII characters",
                param="idempotency-key",
                code="invalid_header",
            )
        self._expire()
        name = hashlib.sha256(f"{api_key_id}\0{key}".encode()).digest()
        answered = self._answered.get(name)
        asked = self._running.get(name) if answered is None else answered.question
        if asked is None:
            self._running[name] = question
            return Claim(self, api_key_id, name, question)
        if asked != question:
            raise Conflict(
                "this idempotency key was used for another request", param="idempotency-key"
            )
        if answered is None:
            raise Conflict(
                "the request of this idempotency key is still running",
                param="idempotency-key",
                code="idempotency_in_progress",
                retry_after_s=_RETRY_AFTER_S,
            )
        stored = self._bodies.get(name)
        if stored is None:
            raise Conflict(
                f"the request of this idempotency key was answered by {answered.generation_id}, "
                "and its answer is kept no more; ask again under another key",
                param="idempotency-key",
                code="idempotency_answer_dropped",
            )
        return stored

    def release(self, name: bytes) -> None:
        """A request is over; for its claim."""
        self._running.pop(name, None)

    def keep(self, api_key_id: str, name: bytes, question: bytes, answer: StoredAnswer) -> None:
        """Remember an answer; for its claim."""
        settings = self._settings
        expires_s = self._clock.monotonic() + settings.retention_s
        self._answered[name] = _Answered(api_key_id, question, answer.generation_id, expires_s)
        self._holdings.add(api_key_id, name)
        if len(answer.body) <= settings.max_bytes:
            self._bodies[name] = answer
            self._size += len(answer.body)
        while self._size > settings.max_bytes:
            self._drop(next(iter(self._bodies)))
        while len(self._answered) > settings.max_keys:
            self._forget(self._holdings.oldest_of_greediest())
        if self._timer is None:
            self._expire_in_time()

    def _expire(self) -> float | None:
        """Forget what is due; seconds until something is, if anything will be."""
        now_s = self._clock.monotonic()
        while self._answered:
            oldest = next(iter(self._answered))
            left_s = self._answered[oldest].expires_s - now_s
            if left_s > 0:
                return left_s
            self._forget(oldest)
        return None

    def _expire_in_time(self) -> None:
        left_s = self._expire()
        loop = asyncio.get_running_loop()
        self._timer = None if left_s is None else loop.call_later(left_s, self._expire_in_time)

    def _forget(self, name: bytes) -> None:
        self._holdings.remove(self._answered.pop(name).api_key_id, name)
        self._drop(name)

    def _drop(self, name: bytes) -> None:
        dropped = self._bodies.pop(name, None)
        if dropped is not None:
            self._size -= len(dropped.body)


class Claim:
    """The right of one request to be the one that runs under its key.

    Args:
        keys: Where it is held.
        api_key_id: Who asks.
        name: Digest of the client and its key.
        question: Digest of what is asked.
    """

    def __init__(
        self, keys: IdempotencyKeys, api_key_id: str, name: bytes, question: bytes
    ) -> None:
        self._keys = keys
        self._api_key_id = api_key_id
        self._name = name
        self._question = question
        self._events: list[bytes] = []

    def copied(self, write: Callable[[bytes], bool]) -> Callable[[bytes], bool]:
        """A `write` that notes the events of a stream, too; anew for each stream begun."""
        events: list[bytes] = []
        self._events = events

        def note_and_write(event: bytes) -> bool:
            events.append(event)
            return write(event)

        return note_and_write

    def keep(
        self, generation_id: str, end: bytes, headers: Mapping[str, str] = _JSON_HEADERS
    ) -> None:
        """Remember the answer.

        Args:
            generation_id: That was billed for it.
            end: The whole body; of a stream, what comes after the events that were noted.
            headers: Of the body.
        """
        answer = StoredAnswer(generation_id, headers, b"".join([*self._events, end]))
        self._keys.keep(self._api_key_id, self._name, self._question, answer)

    def release(self) -> None:
        """The request is over, well or not."""
        self._keys.release(self._name)


def digest_of(*parts: bytes | str) -> bytes:
    """Of everything that decides an answer; texts may be of any characters."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode("utf-8", "surrogatepass") if isinstance(part, str) else part
        digest.update(b"%d:" % len(data))
        digest.update(data)
    return digest.digest()
