"""How a chat's answer is written beyond its text, in streams and in whole replies alike."""

from dataclasses import dataclass
from typing import Any

from provider_core.text.events import ChoiceFinish, ToolCall, ToolCallDelta, ToolCallStart


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatForm:
    """What a request, or the server's settings, say of the form of an answer.

    Attributes:
        offers_tools: Calls may come; content before them is null where there is none.
        is_legacy: The client offered `functions` and not `tools`: it reads one `function_call`.
        has_reasoning_content: Reasoning is also called `reasoning_content`, for clients that know
            no other name.
    """

    offers_tools: bool = False
    is_legacy: bool = False
    has_reasoning_content: bool = False

    def reasoning(self, text: str) -> dict[str, Any]:
        """The fields of a message, or of a delta, that hold reasoning: its text and as an item."""
        fields: dict[str, Any] = {
            "reasoning": text,
            "reasoning_details": [{"type": "reasoning.text", "text": text, "index": 0}],
        }
        if self.has_reasoning_content:
            fields["reasoning_content"] = text
        return fields

    def calls(self, calls: list[ToolCall]) -> dict[str, Any]:
        """The fields of a message that hold calls; none without any."""
        if not calls:
            return {}
        functions = [{"name": call.name, "arguments": call.arguments} for call in calls]
        if self.is_legacy:
            return {"function_call": functions[0]}
        return {
            "tool_calls": [
                {"id": call.call_id, "type": "function", "function": function}
                for call, function in zip(calls, functions, strict=True)
            ]
        }

    def call_delta(self, event: ToolCallStart | ToolCallDelta) -> dict[str, Any]:
        """The fields of a delta: a call's identity at first, then nothing but arguments."""
        call: dict[str, Any] = {"index": event.call_index}
        if isinstance(event, ToolCallStart):
            call |= {"id": event.call_id, "type": "function"}
            function = {"name": event.name, "arguments": ""}
        else:
            function = {"arguments": event.arguments}
        if self.is_legacy:
            return {"function_call": function}
        return {"tool_calls": [call | {"function": function}]}

    def finish_reason(self, reason: ChoiceFinish | None) -> str | None:
        """Why a choice ended, in the words of this form."""
        return "function_call" if self.is_legacy and reason == "tool_calls" else reason


TEXT_ONLY = ChatForm()
"""Of a request without tools."""
