"""Whole messages: the fold of a generation's events as one JSON object."""

from collections.abc import Iterable
from typing import Any, assert_never

import orjson

from provider_core.dialects.anthropic.blocks import MessageHead, sign, usage_object
from provider_core.text.events import (
    Event,
    Finished,
    PromptEcho,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
    ToolCallStart,
)
from provider_core.text.json_syntax import is_readable_object
from provider_core.types import Usage


def message(head: MessageHead, events: Iterable[Event], usage: Usage) -> dict[str, Any]:
    """A message, for `orjson.dumps`: the blocks that a stream would have shown, in its order.

    Args:
        head: What was known of it.
        events: Of one choice that did not fail.
        usage: The final counts.
    """
    blocks = _Blocks()
    end: dict[str, Any] = {}
    for event in events:
        match event:
            case TextDelta():
                blocks.add("text", event.text)
            case ReasoningDelta():
                blocks.add("thinking", event.text)
            case ToolCallStart():
                blocks.open("tool_use", {"id": event.call_id, "name": event.name})
            case ToolCallDelta():
                blocks.add("tool_use", event.arguments)
            case Finished():
                end = head.end(event, usage)
            case PromptEcho():  # this dialect cannot ask for one
                pass
            case _:
                assert_never(event)
    return head.message(blocks.content(), usage_object(usage)) | end


class _Blocks:
    """Collects content block by block."""

    def __init__(self) -> None:
        self._blocks: list[tuple[str, dict[str, Any], list[str]]] = []

    def open(self, kind: str, fields: dict[str, Any]) -> None:
        self._blocks.append((kind, fields, []))

    def add(self, kind: str, text: str) -> None:
        if not text:
            return
        if not self._blocks or self._blocks[-1][0] != kind:
            self.open(kind, {})
        self._blocks[-1][2].append(text)

    def content(self) -> list[dict[str, Any]]:
        return [_block(kind, fields, "".join(texts)) for kind, fields, texts in self._blocks]


def _block(kind: str, fields: dict[str, Any], text: str) -> dict[str, Any]:
    match kind:
        case "thinking":
            return {"type": kind, "thinking": text, "signature": sign(text)}
        case "tool_use":
            return {"type": kind, **fields, "input": _input(text)}
        case _:
            return {"type": kind, "text": text}


def _input(arguments: str) -> orjson.Fragment | dict[str, str]:
    """The arguments as the model wrote them; wrapped as Anthropic asks if they cannot be read.

    They cannot where the token limit cut them. An empty object would hide that, and might be taken
    for a call without arguments (Anthropic, "Handling invalid JSON in tool responses").
    """
    if is_readable_object(arguments):
        return orjson.Fragment(arguments)
    return {"INVALID_JSON": arguments} if arguments else {}
