"""What whole messages and streams of Anthropic's dialect share: signatures, ends and counts."""

import hashlib
from dataclasses import dataclass
from typing import Any

from provider_core.text.events import Finished
from provider_core.types import Usage


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageHead:
    """What is known of an answer before it begins.

    Attributes:
        message_id: Begins with `msg_`.
        model: As the client asked for it.
        max_model_len: Most tokens of prompt and answer together.
        max_tokens: Most tokens of the answer, as the client asked.
    """

    message_id: str
    model: str
    max_model_len: int
    max_tokens: int | None

    def message(self, content: list[dict[str, Any]], usage: dict[str, Any]) -> dict[str, Any]:
        """The message object, not ended yet."""
        return {
            "id": self.message_id,
            "type": "message",
            "role": "assistant",
            "model": self.model,
            "content": content,
            "stop_reason": None,
            "stop_sequence": None,
            "usage": usage,
        }

    def end(self, finished: Finished, usage: Usage) -> dict[str, Any]:
        """The fields that say why an answer ended.

        Args:
            finished: How the choice ended; not by an error.
            usage: The final counts.
        """
        reason = "end_turn"
        if finished.finish_reason == "tool_calls":
            reason = "tool_use"
        elif finished.finish_reason == "length":
            is_full = usage.prompt_tokens + usage.completion_tokens >= self.max_model_len
            is_asked = self.max_tokens is not None and usage.completion_tokens >= self.max_tokens
            cut_by_context = is_full and not is_asked
            reason = "model_context_window_exceeded" if cut_by_context else "max_tokens"
        elif finished.stop_string is not None:
            reason = "stop_sequence"
        return {"stop_reason": reason, "stop_sequence": finished.stop_string}


def sign(thinking: str) -> str:
    """A signature of thinking: clients insist on one and send it back, where nobody checks it."""
    return hashlib.sha256(thinking.encode()).hexdigest()


def usage_object(usage: Usage) -> dict[str, Any]:
    """Token counts: cached input is counted beside `input_tokens`, not in it."""
    return {
        "input_tokens": usage.prompt_tokens - usage.cached_tokens,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": usage.cached_tokens,
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"thinking_tokens": usage.reasoning_tokens},
    }
