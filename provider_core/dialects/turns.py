"""Turns of a conversation, collected piece by piece, to OpenAI's message objects.

For dialects whose turns are made of blocks: consecutive pieces of one role are one message, because
templates often refuse two.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from provider_core.dialects.chat_request import ImageSource


@dataclass(slots=True)
class _Turn:
    role: str
    texts: list[str | None] = field(default_factory=list)  # `None` is an image
    thoughts: list[str] = field(default_factory=list)
    calls: list[dict[str, Any]] = field(default_factory=list)
    result_of: Mapping[str, str] = field(default_factory=dict)  # a tool's fields

    def message(self, separator: str) -> dict[str, Any]:
        content: str | list[dict[str, str]] | None = None
        if None in self.texts:
            content = [
                {"type": "image"} if text is None else {"type": "text", "text": text}
                for text in self.texts
            ]
        elif self.texts:
            content = separator.join(text for text in self.texts if text is not None)
        message = {"role": self.role, "content": content, **self.result_of}
        if self.thoughts:
            message["reasoning_content"] = separator.join(self.thoughts)
        if self.calls:
            message["tool_calls"] = self.calls
        return message


class Turns:
    """Collects turns, in linear time.

    Args:
        separators: What stands between the texts of one role; a newline if it is not named.

    Attributes:
        images: In their order.
    """

    def __init__(self, separators: Mapping[str, str] | None = None) -> None:
        self.images: list[ImageSource] = []
        self._separators = separators or {}
        self._turns: list[_Turn] = []

    def open(self, role: str) -> None:
        """Make sure that the running turn is of a role, though it may stay empty."""
        self._running(role)

    def say(self, role: str, text: str) -> None:
        """Add text."""
        self._running(role).texts.append(text)

    def think(self, text: str) -> None:
        """Add what the assistant thought."""
        self._running("assistant").thoughts.append(text)

    def show(self, image: ImageSource) -> None:
        """Add an image of the user."""
        self.images.append(image)
        self._running("user").texts.append(None)

    def call(self, call_id: str, name: str, arguments: Mapping[str, Any]) -> None:
        """Add a call of the assistant."""
        function = {"name": name, "arguments": orjson.dumps(arguments).decode()}
        call = {"id": call_id, "type": "function", "function": function}
        self._running("assistant").calls.append(call)

    def answer(self, call_id: str, text: str, name: str | None) -> None:
        """Add what a call gave; some templates write the function's name."""
        fields = {"tool_call_id": call_id} | ({"name": name} if name is not None else {})
        self._turns.append(_Turn("tool", [text], result_of=fields))

    def messages(self) -> list[dict[str, Any]]:
        """All of them."""
        return [turn.message(self._separators.get(turn.role, "\n")) for turn in self._turns]

    def _running(self, role: str) -> _Turn:
        if not self._turns or self._turns[-1].role != role:
            self._turns.append(_Turn(role))
        return self._turns[-1]
