"""What whole answers and streams of Google's dialect share: candidates, parts and counts."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from provider_core.dialects.openai.logprobs import DecodeToken
from provider_core.text.events import (
    ChoiceFinish,
    Event,
    Finished,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
    ToolCallStart,
)
from provider_core.text.json_syntax import is_readable_object
from provider_core.types import TokenLogprobs, Usage

_LEAST_LOGPROB = -9999.0  # stands for minus infinity, which JSON cannot say


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerHead:
    """What is known of an answer before it begins.

    Attributes:
        response_id: The generation's id.
        model: As the client asked for it.
        decode_token: How to name tokens if log probabilities were asked for, else `None`.
    """

    response_id: str
    model: str
    decode_token: DecodeToken | None = None

    def response(
        self, candidates: Sequence[dict[str, Any]], usage: Usage | None = None
    ) -> dict[str, Any]:
        """A whole or partial answer; the counts come with the last."""
        response: dict[str, Any] = {"candidates": candidates}
        if usage is not None:
            response["usageMetadata"] = usage_metadata(usage)
        return response | {"modelVersion": self.model, "responseId": self.response_id}

    def logprobs(self, entries: Sequence[TokenLogprobs]) -> dict[str, Any]:
        """The field of a candidate that holds its tokens' log probabilities, if there are any."""
        if self.decode_token is None or not entries:
            return {}
        result = {
            "chosenCandidates": [self._token(e.token_id, e.logprob) for e in entries],
            "topCandidates": [
                {"candidates": [self._token(*alternative) for alternative in entry.top]}
                for entry in entries
            ],
        }
        return {"logprobsResult": result}

    def _token(self, token_id: int, logprob: float | None) -> dict[str, Any]:
        text = "" if self.decode_token is None else self.decode_token(token_id)[0]
        value = 0.0 if logprob is None else max(logprob, _LEAST_LOGPROB)
        return {"token": text, "tokenId": token_id, "logProbability": value}


class Parts:
    """The parts of one candidate, event by event; a call is shown once it is whole.

    Attributes:
        unreadable_call: The last call whose arguments are no JSON object, as the model wrote it;
            this dialect has no place for it among the parts.
    """

    def __init__(self) -> None:
        self.unreadable_call: str | None = None
        self._call: ToolCallStart | None = None
        self._arguments: list[str] = []

    @property
    def has_open_call(self) -> bool:
        """A call has begun, and its arguments may not all have come."""
        return self._call is not None

    def take(self, event: Event) -> list[dict[str, Any]]:
        """The parts that an event completes."""
        if type(event) is ToolCallDelta:
            self._arguments.append(event.arguments)
            return []
        parts = self._end_call()
        match event:
            case TextDelta(text=text) if text:
                parts.append({"text": text})
            case ReasoningDelta(text=text) if text:
                parts.append({"text": text, "thought": True})
            case ToolCallStart():
                self._call = event
        return parts

    def _end_call(self) -> list[dict[str, Any]]:
        """The call before, whose arguments have all come; none if they are no JSON object."""
        call, self._call = self._call, None
        if call is None:
            return []
        text = "".join(self._arguments)
        self._arguments.clear()
        if not is_readable_object(text):
            self.unreadable_call = f"{call.name}({text})"
            return []
        function = {"id": call.call_id, "name": call.name, "args": orjson.Fragment(text)}
        return [{"functionCall": function}]

    def end(self, finished: Finished) -> dict[str, Any]:
        """The fields of a candidate that say why it ended.

        A call that cannot be read is the reason, unless the token limit cut it.
        """
        if self.unreadable_call is None or finished.finish_reason not in {"stop", "tool_calls"}:
            return {"finishReason": finish_reason(finished.finish_reason)}
        message = f"Malformed function call: {self.unreadable_call}"
        return {"finishReason": "MALFORMED_FUNCTION_CALL", "finishMessage": message}


def candidate(index: int, parts: Sequence[dict[str, Any]], **fields: Any) -> dict[str, Any]:
    """One candidate, or a piece of one; the fields come behind its content."""
    return {"content": {"parts": parts, "role": "model"}, **fields, "index": index}


def finish_reason(reason: ChoiceFinish) -> str:
    """A call of a function ends like any other answer."""
    return {"stop": "STOP", "tool_calls": "STOP", "length": "MAX_TOKENS"}.get(reason, "OTHER")


def usage_metadata(usage: Usage) -> dict[str, int]:
    """Token counts: cached ones are in the prompt's, thoughts beside the candidates'."""
    counts = {
        "promptTokenCount": usage.prompt_tokens,
        "candidatesTokenCount": usage.completion_tokens - usage.reasoning_tokens,
        "totalTokenCount": usage.total_tokens,
    }
    if usage.cached_tokens:
        counts["cachedContentTokenCount"] = usage.cached_tokens
    if usage.reasoning_tokens:
        counts["thoughtsTokenCount"] = usage.reasoning_tokens
    return counts
