"""Anthropic's stream: each event of a generation to the bytes of its server-sent events.

One block is open at a time and indexes count up. `message_start` waits for the first event, because
it tells how many input tokens were cached; silence before it is filled with pings, which clients
take anywhere. A text delta is two byte strings around its JSON: the rest is built when its block
opens.
"""

from collections.abc import Callable
from typing import Any, ClassVar, assert_never

from provider_core.dialects.anthropic.blocks import MessageHead, sign, usage_object
from provider_core.dialects.anthropic.errors import error_body
from provider_core.dialects.sse_json import dumps
from provider_core.text.events import (
    Event,
    Finished,
    PromptEcho,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
    ToolCallStart,
)
from provider_core.types import Usage

_DELTAS = {
    "text": b'{"type":"text_delta","text":',
    "thinking": b'{"type":"thinking_delta","thinking":',
    "tool_use": b'{"type":"input_json_delta","partial_json":',
}
_EMPTY = {"text": {"text": ""}, "thinking": {"thinking": "", "signature": ""}}


class MessageStreamEncoder:
    """The stream of one message.

    Args:
        head: What is known of it.
        usage: Tells the counts so far; the input's are final from the first event on.
        request_id: Named in errors.
    """

    keepalive: ClassVar[bytes] = b'event: ping\ndata: {"type":"ping"}\n\n'

    def __init__(self, head: MessageHead, usage: Callable[[], Usage], request_id: str) -> None:
        self._head = head
        self._usage = usage
        self._request_id = request_id
        self._has_started = False
        self._index = -1  # of the open or last block
        self._kind: str | None = None  # of the open block
        self._delta_head = b""  # an event of the open block up to its text
        self._thinking: list[str] = []  # of the open block, to be signed
        self._finished: Finished | None = None

    def first(self, _index: int) -> bytes:
        """Nothing: the message starts with its first event."""
        return b""

    def encode(self, event: Event) -> bytes:
        """The bytes of one event; none for the finish, which waits for the counts."""
        if not self._has_started:
            return self._start() + self.encode(event)
        match event:
            case TextDelta():
                return self._delta("text", event.text)
            case ReasoningDelta():
                return self._delta("thinking", event.text)
            case ToolCallStart():
                call = {"id": event.call_id, "name": event.name, "input": {}}
                return self._open("tool_use", call)
            case ToolCallDelta():
                return self._delta("tool_use", event.arguments)
            case Finished():
                self._finished = event
                return b""
            case PromptEcho():  # this dialect cannot ask for one
                return b""
            case _:
                assert_never(event)

    def end(self, usage: Usage, cost: str | None = None) -> bytes:
        """The end of the last block and of the message, with the final counts.

        Args:
            usage: The final counts.
            cost: Not told in this dialect.
        """
        del cost
        if self._finished is None:
            return self.error(None, usage)
        start = b"" if self._has_started else self._start()
        delta = {
            "type": "message_delta",
            "delta": self._head.end(self._finished, usage),
            "usage": usage_object(usage),
        }
        return b"".join((start, self._close(), _event(delta), _event({"type": "message_stop"})))

    def error(
        self, error: BaseException | None, usage: Usage | None = None, cost: str | None = None
    ) -> bytes:
        """The last bytes of a stream that failed.

        Args:
            error: Of a `ProviderError` the message is shown, of anything else nothing.
            usage: Not told beside an error.
            cost: Not told in this dialect.
        """
        del usage, cost
        return _event(error_body(error, self._request_id))

    def _start(self) -> bytes:
        self._has_started = True
        message = self._head.message([], usage_object(self._usage()) | {"output_tokens": 0})
        return _event({"type": "message_start", "message": message})

    def _delta(self, kind: str, text: str) -> bytes:
        if not text:  # ids that show nothing
            return b""
        opening = b""
        if self._kind != kind:
            opening = self._open(kind, _EMPTY[kind])
        if kind == "thinking":
            self._thinking.append(text)
        return b"%b%b%b}}\n\n" % (opening, self._delta_head, dumps(text))

    def _open(self, kind: str, content: dict[str, Any]) -> bytes:
        closing = self._close()
        self._kind = kind
        self._index += 1
        self._delta_head = (
            b'event: content_block_delta\ndata: {"type":"content_block_delta","index":%d,"delta":%b'
            % (self._index, _DELTAS[kind])
        )
        return closing + _event(
            {
                "type": "content_block_start",
                "index": self._index,
                "content_block": {"type": kind, **content},
            }
        )

    def _close(self) -> bytes:
        """End the open block, if there is one."""
        if self._kind is None:
            return b""
        signature = b""
        if self._kind == "thinking":
            delta = {"type": "signature_delta", "signature": sign("".join(self._thinking))}
            self._thinking.clear()
            signature = _event(
                {"type": "content_block_delta", "index": self._index, "delta": delta}
            )
        self._kind = None
        return signature + _event({"type": "content_block_stop", "index": self._index})


def _event(value: dict[str, Any]) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (value["type"].encode(), dumps(value))
