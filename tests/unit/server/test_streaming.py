"""How a stream begins."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from provider_core.server import streaming
from provider_core.text.events import TextDelta


class RecordingWriter:
    """An `SseWriter` that keeps what is written."""

    def __init__(self, *_: object, **__: object) -> None:
        self.written: list[bytes] = []

    def write(self, event: bytes) -> bool:
        """Take events."""
        self.written.append(event)
        return True

    async def open(self) -> None:
        """Nothing is to be sent."""


class Encoder:
    """Events by name."""

    keepalive = b":"

    def first(self, index: int) -> bytes:
        """The opening."""
        return b"first %d" % index

    def encode(self, _: object) -> bytes:
        """Any event."""
        return b"event"


async def test_an_event_that_comes_as_the_patience_ends_opens_no_choice_twice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The loop may see both in one turn, whichever was first."""
    monkeypatch.setattr(streaming, "SseWriter", RecordingWriter)
    parts: Any = [
        SimpleNamespace(),  # the request
        SimpleNamespace(stream_type="text/event-stream", claim=None),
        SimpleNamespace(sse_keepalive_s=0),
        lambda *_: Encoder(),
        SimpleNamespace(requests=[SimpleNamespace(prompt_token_ids=(1,))]),
    ]
    generation: Any = SimpleNamespace(pause=lambda: None)
    stream = streaming._Stream(*parts)
    opening = asyncio.create_task(stream.open(generation, lambda: None))
    asyncio.get_running_loop().call_soon(stream.on_event, TextDelta(index=0, text="a"))
    await opening
    writer: Any = stream.writer
    assert writer.written == [b"first 0", b"event"]
