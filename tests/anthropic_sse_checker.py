"""A strict reader of Anthropic's event streams: every rule of framing and order, or it fails.

Every event has a name that is its `type`; one block is open at a time and indexes count up; deltas
are of the open block's kind; the counts come with `message_delta`; `message_stop` or `error` is
last. Pings may stand anywhere.
"""

from dataclasses import dataclass, field
from typing import Any

import orjson

_DELTAS = {
    "text": {"text_delta": "text"},
    "thinking": {"thinking_delta": "thinking", "signature_delta": "signature"},
    "tool_use": {"input_json_delta": "partial_json"},
}


@dataclass
class CheckedMessage:
    """What a well-formed stream said.

    Attributes:
        message: As a whole reply would be, folded from the events; `None` before its start.
        start_usage: The counts of `message_start`.
        error: The object under `error`, if the stream failed.
        num_pings: Keep-alives.
        types: Of all events but pings, in order.
    """

    message: dict[str, Any] | None = None
    start_usage: dict[str, Any] | None = None
    error: dict[str, Any] | None = None
    num_pings: int = 0
    types: list[str] = field(default_factory=list)


def split_events(body: bytes) -> list[dict[str, Any]]:
    """Check the framing byte by byte and return the events' objects."""
    assert body.endswith(b"\n\n"), "a stream ends with a whole event"
    assert b"\r" not in body, "line ends are plain newlines"
    events = []
    for block in body[:-2].split(b"\n\n"):
        name, separator, data = block.partition(b"\n")
        assert separator, f"an event has a name and data: {block!r}"
        assert name.startswith(b"event: "), f"no name: {block!r}"
        assert data.startswith(b"data: "), f"no data: {block!r}"
        payload = data.removeprefix(b"data: ")
        assert len(payload.decode().splitlines()) == 1, f"a raw line break inside: {payload!r}"
        event = orjson.loads(payload)
        assert event["type"] == name.removeprefix(b"event: ").decode()
        events.append(event)
    return events


def check_message_stream(body: bytes) -> CheckedMessage:
    """Check a whole stream and fold it."""
    reader = _Reader()
    for event in split_events(body):
        reader.take(event)
    checked = reader.checked
    assert checked.types, "the stream is empty"
    assert checked.types[-1] in {"message_stop", "error"}, "the end is missing"
    return checked


class _Reader:
    def __init__(self) -> None:
        self.checked = CheckedMessage()
        self._block: dict[str, Any] | None = None  # the open one
        self._json = ""  # its arguments
        self._has_counts = False

    def take(self, event: dict[str, Any]) -> None:
        """One event, by the method that is named after it."""
        checked = self.checked
        if event["type"] == "ping":
            checked.num_pings += 1
            return
        assert checked.types[-1:] not in (["message_stop"], ["error"]), "nothing follows the end"
        checked.types.append(event["type"])
        getattr(self, f"_{event['type']}")(event)

    @property
    def _message_so_far(self) -> dict[str, Any]:
        assert self.checked.message is not None, "an event before the start"
        return self.checked.message

    def _error(self, event: dict[str, Any]) -> None:
        assert event["request_id"].startswith("req-")
        self.checked.error = event["error"]

    def _message_start(self, event: dict[str, Any]) -> None:
        assert self.checked.message is None, "a message starts once"
        self.checked.message = event["message"]
        assert event["message"]["content"] == []
        assert event["message"]["stop_reason"] is None
        self.checked.start_usage = dict(event["message"]["usage"])

    def _content_block_start(self, event: dict[str, Any]) -> None:
        assert self._block is None, "one block at a time"
        assert event["index"] == len(self._message_so_far["content"]), "indexes count up"
        self._block = event["content_block"]
        self._json = ""
        assert not any(self._block.get(key) for key in ("text", "thinking", "input"))
        self._message_so_far["content"].append(self._block)

    def _content_block_delta(self, event: dict[str, Any]) -> None:
        block = self._open_block(event)
        delta = event["delta"]
        key = _DELTAS[block["type"]][delta["type"]]
        assert delta[key], "a delta says something"
        if key == "partial_json":
            self._json += delta[key]
        else:
            block[key] += delta[key]

    def _content_block_stop(self, event: dict[str, Any]) -> None:
        block = self._open_block(event)
        if block["type"] == "tool_use":
            block["input"] = orjson.loads(self._json or "{}")
        assert block["type"] != "thinking" or block["signature"], "thinking is signed"
        self._block = None

    def _open_block(self, event: dict[str, Any]) -> dict[str, Any]:
        assert self._block is not None, "no block is open"
        assert event["index"] == len(self._message_so_far["content"]) - 1
        return self._block

    def _message_delta(self, event: dict[str, Any]) -> None:
        assert self._block is None, "every block has stopped"
        assert not self._has_counts, "the counts come once"
        self._has_counts = True
        assert event["delta"]["stop_reason"]
        self._message_so_far.update(event["delta"])
        self._message_so_far["usage"] = event["usage"]

    def _message_stop(self, _event: dict[str, Any]) -> None:
        assert self._has_counts, "the counts come before the end"
