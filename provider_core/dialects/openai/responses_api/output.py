"""The output of a response as it grows: events of a generation to items, and to what tells them.

An item is a run of text, a run of reasoning, or a call. One is open at a time. Tokens that show
nothing open none.
"""

from collections.abc import Sequence
from typing import Any, Literal, assert_never

from provider_core.dialects.openai.logprobs import ChatLogprobs, DecodeToken
from provider_core.text.events import (
    Event,
    Finished,
    PromptEcho,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
    ToolCallStart,
)
from provider_core.types import TokenLogprobs

Told = dict[str, Any]
"""An event of the stream without its number: JSON with a `type`."""

_PREFIXES = {"message": "msg", "reasoning": "rs", "function_call": "fc"}


class Output:
    """The items of one response.

    Args:
        response_id: From which items get their ids.
        decode_token: How to name tokens if log probabilities were asked for, else `None`.

    Attributes:
        items: All that began, in order; the last one may be open.
    """

    def __init__(self, response_id: str, decode_token: DecodeToken | None = None) -> None:
        self.items: list[dict[str, Any]] = []
        self._id_tail = response_id.removeprefix("gen-")
        self._chat_logprobs = None if decode_token is None else ChatLogprobs(decode_token)
        self._kind: str | None = None  # of the open item
        self._place: dict[str, Any] = {}  # fields by which events name it
        self._pieces: list[str] = []
        self._logprobs: list[dict[str, Any]] = []

    def take(self, event: Event) -> list[Told]:
        """Take one event in, and return what tells it."""
        match event:
            case TextDelta():
                return self._text("message", event.text, event.logprobs)
            case ReasoningDelta():
                return self._text("reasoning", event.text, ())
            case ToolCallStart():
                call = {"call_id": event.call_id, "name": event.name, "arguments": ""}
                return self._open("function_call", call)
            case ToolCallDelta():
                self._pieces.append(event.arguments)
                return [
                    {
                        "type": "response.function_call_arguments.delta",
                        **self._place,
                        "delta": event.arguments,
                    }
                ]
            case PromptEcho() | Finished():
                return []
            case _:
                assert_never(event)

    def close(self, status: Literal["completed", "incomplete"] = "completed") -> list[Told]:
        """End the open item, if there is one, and return what tells that it is whole, or cut."""
        kind, self._kind = self._kind, None
        if kind is None:
            return []
        text = "".join(self._pieces)
        item = self.items[-1]
        item["status"] = status
        done = {"type": "response.output_item.done", "output_index": len(self.items) - 1}
        if kind == "function_call":
            item["arguments"] = text
            told = "response.function_call_arguments.done"
            return [{"type": told, **self._place, "arguments": text}, {**done, "item": item}]
        part = _part(kind, text, self._logprobs)
        item["content"] = [part]
        whole = {"type": f"response.{part['type']}.done", **self._place, "text": text}
        if kind == "message":
            whole["logprobs"] = self._logprobs
        return [
            whole,
            {"type": "response.content_part.done", **self._place, "part": part},
            {**done, "item": item},
        ]

    def _text(
        self,
        kind: Literal["message", "reasoning"],
        text: str,
        logprobs: Sequence[TokenLogprobs],
    ) -> list[Told]:
        told = []
        if self._kind != kind:
            if not text:
                return []
            told = self._open(kind, {"role": "assistant"} if kind == "message" else {"summary": []})
        delta: Told = {"type": f"response.{_part_type(kind)}.delta", **self._place, "delta": text}
        if kind == "message":
            delta["logprobs"] = self._encode(logprobs)
            self._logprobs += delta["logprobs"]
        elif not text:
            return []
        self._pieces.append(text)
        return [*told, delta]

    def _open(self, kind: str, fields: dict[str, Any]) -> list[Told]:
        told = self.close()
        index = len(self.items)
        item_id = f"{_PREFIXES[kind]}_{self._id_tail}_{index}"
        item = {"id": item_id, "type": kind, "status": "in_progress", **fields}
        self.items.append(item)
        self._kind = kind
        self._pieces = []
        self._logprobs = []
        self._place = {"item_id": item_id, "output_index": index}
        added = {"type": "response.output_item.added", "output_index": index}
        if kind == "function_call":
            return [*told, {**added, "item": dict(item)}]
        item["content"] = []
        self._place["content_index"] = 0
        part = _part(kind, "", [])
        return [
            *told,
            {**added, "item": dict(item)},
            {"type": "response.content_part.added", **self._place, "part": part},
        ]

    def _encode(self, logprobs: Sequence[TokenLogprobs]) -> list[dict[str, Any]]:
        if self._chat_logprobs is None:
            return []
        content: list[dict[str, Any]] = self._chat_logprobs.encode(0, logprobs)["content"]
        return content


def _part_type(kind: str) -> str:
    return "output_text" if kind == "message" else "reasoning_text"


def _part(kind: str, text: str, logprobs: list[dict[str, Any]]) -> dict[str, Any]:
    part: dict[str, Any] = {"type": _part_type(kind), "text": text}
    if kind == "message":
        part |= {"annotations": [], "logprobs": logprobs}
    return part
