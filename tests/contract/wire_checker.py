"""A strict reader of whole chat replies, and what makes one equal to a stream.

The rules are those of the strictest published client, as in `tests.sse_checker`: closed sets of
keys, no null where a client rejects it, every count an integer.
"""

from typing import Any

from tests.sse_checker import FINISH_REASONS, CheckedStream, check_usage

_ROOT = {"id", "object", "created", "model", "system_fingerprint", "choices", "usage"}
_MESSAGE = {"role", "content", "refusal"}
_OPTIONAL = {"reasoning", "reasoning_details", "reasoning_content", "tool_calls", "function_call"}


def check_reply(reply: dict[str, Any], *, num_choices: int = 1, openrouter: bool = False) -> None:
    """Check a whole chat completion.

    Args:
        reply: As parsed from JSON.
        num_choices: How many it must have.
        openrouter: It came from `/api/v1`.
    """
    assert reply.keys() - {"service_tier"} == _ROOT
    assert reply["object"] == "chat.completion"
    assert type(reply["created"]) is int
    for key in ("id", "model", "system_fingerprint"):
        assert isinstance(reply[key], str)
        assert reply[key], f"{key} is never empty"
    check_usage(reply["usage"])
    assert ("cost" in reply["usage"]) is openrouter
    assert [choice["index"] for choice in reply["choices"]] == list(range(num_choices))
    for choice in reply["choices"]:
        _check_choice(choice, openrouter=openrouter)


def check_same(stream: CheckedStream, reply: dict[str, Any]) -> None:
    """Check that a stream and a whole reply say the same; ids of calls are each their own."""
    for choice in reply["choices"]:
        index, message = choice["index"], choice["message"]
        assert stream.texts[index] == (message["content"] or "")
        assert stream.reasonings.get(index) == message.get("reasoning")
        assert stream.finish_reasons[index] == choice["finish_reason"]
        streamed = [(call["name"], call["arguments"]) for call in stream.calls.get(index, [])]
        functions = [call["function"] for call in message.get("tool_calls", [])]
        if "function_call" in message:
            functions = [message["function_call"]]
        assert streamed == [(call["name"], call["arguments"]) for call in functions]
        assert _logprobs_of(stream, index) == choice["logprobs"]
    assert stream.usage == reply["usage"]


def _check_choice(choice: dict[str, Any], *, openrouter: bool) -> None:
    expected = {"index", "message", "logprobs", "finish_reason"}
    assert choice.keys() == (expected | {"native_finish_reason"} if openrouter else expected)
    assert choice["finish_reason"] in FINISH_REASONS
    message = choice["message"]
    assert message.keys() >= _MESSAGE
    assert message.keys() <= _MESSAGE | _OPTIONAL
    assert message["role"] == "assistant"
    assert message["refusal"] is None
    for key in message.keys() & _OPTIONAL:
        assert message[key], f"{key} is absent when empty"
    calls = message.get("tool_calls", [])
    if message["content"] is None:
        assert calls or "function_call" in message, "content is null only beside calls"
    assert len({call["id"] for call in calls}) == len(calls), "ids are unique"
    for call in calls:
        assert call.keys() == {"id", "type", "function"}
        assert call["type"] == "function"
        assert 0 < len(call["id"]) <= 64
        assert call["function"].keys() == {"name", "arguments"}
        assert isinstance(call["function"]["arguments"], str)


def _logprobs_of(stream: CheckedStream, index: int) -> dict[str, Any] | None:
    """What a stream's chunks said of one choice's tokens, joined."""
    content: list[dict[str, Any]] | None = None
    for chunk in stream.chunks:
        for choice in chunk["choices"]:
            if choice["index"] == index and choice["logprobs"] is not None:
                content = [*(content or []), *choice["logprobs"]["content"]]
    return None if content is None else {"content": content, "refusal": None}
