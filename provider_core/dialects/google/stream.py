"""Google's streams: each event of a generation to the bytes of a partial answer.

With `alt=sse` each is a server-sent event, without it an element of one JSON array. The last one
tells why every candidate ended, and the counts.

What clients skip differs: the Python library fails on comments, older JavaScript ones on blank
lines. An answer with an empty text is an answer to all of them, and so it keeps a stream alive.
"""

from collections.abc import Mapping
from typing import ClassVar

import orjson

from provider_core.dialects.google.answers import AnswerHead, Parts, candidate
from provider_core.dialects.google.errors import error_body
from provider_core.dialects.sse_json import dumps
from provider_core.text.events import Event, Finished, TextDelta
from provider_core.types import Usage

_EMPTY = [{"text": ""}]


class SseEncoder:
    """A stream of server-sent events.

    Args:
        head: What is known of the answer.
        num_choices: Candidates; their indexes count from 0.
    """

    keepalive: ClassVar[bytes] = b"data: %b\n\n" % orjson.dumps(
        {"candidates": [candidate(0, _EMPTY)]}
    )
    media_type: ClassVar[str] = "text/event-stream"

    def __init__(self, head: AnswerHead, num_choices: int) -> None:
        self._head = head
        self._parts = [Parts() for _ in range(num_choices)]
        self._finished: dict[int, Finished] = {}
        self._is_plain = head.decode_token is None
        # What stands around a candidate's text: all that does not change.
        self._around = [
            dumps(head.response([candidate(index, _EMPTY)])).split(b'""', 1)
            for index in range(num_choices)
        ]

    def first(self, _index: int) -> bytes:
        """Nothing: a candidate begins with its first part."""
        return b""

    def encode(self, event: Event) -> bytes:
        """The bytes of one event; none for a finish, which waits for the counts."""
        choice = self._parts[event.index]
        if type(event) is TextDelta and event.text and self._is_plain and not choice.has_open_call:
            before, after = self._around[event.index]
            return self._frame(before + dumps(event.text) + after)
        if type(event) is Finished:
            self._finished[event.index] = event
        parts = choice.take(event)
        logprobs = self._head.logprobs(getattr(event, "logprobs", ()))
        if not parts and not logprobs:
            return b""
        piece = candidate(event.index, parts or _EMPTY) | logprobs
        return self._frame(dumps(self._head.response([piece])))

    def end(self, usage: Usage, cost: str | None = None) -> bytes:
        """The last answer: why every candidate ended, and the counts.

        Args:
            usage: The final counts.
            cost: Not told in this dialect.
        """
        del cost
        ends = [
            candidate(index, _EMPTY, **self._parts[index].end(finished))
            for index, finished in sorted(self._finished.items())
        ]
        return self._frame(dumps(self._head.response(ends, usage))) + self._terminator()

    def error(
        self, error: BaseException | None, usage: Usage | None = None, cost: str | None = None
    ) -> bytes:
        """The last bytes of a stream that failed.

        Args:
            error: Of a `ProviderError` the message is shown, of anything else nothing.
            usage: Not told: `error` stands alone.
            cost: Not told in this dialect.
        """
        del usage, cost
        return self._frame(dumps(error_body(error))) + self._terminator()

    def _frame(self, json: bytes) -> bytes:
        return b"data: %b\n\n" % json

    def _terminator(self) -> bytes:
        return b""


class ArrayEncoder(SseEncoder):
    """A stream that is one JSON array, an answer an element; space between them says nothing."""

    keepalive: ClassVar[bytes] = b"\n"
    media_type: ClassVar[str] = "application/json"

    def __init__(self, head: AnswerHead, num_choices: int) -> None:
        super().__init__(head, num_choices)
        self._opening = b"["

    def _frame(self, json: bytes) -> bytes:
        opening, self._opening = self._opening, b",\r\n"
        return opening + json

    def _terminator(self) -> bytes:
        return b"]"


def encoder_class(query: Mapping[str, str]) -> type[SseEncoder]:
    """Which stream a request asks for."""
    return SseEncoder if query.get("alt") == "sse" else ArrayEncoder
