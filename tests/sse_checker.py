"""A strict reader of OpenAI event streams: every rule of framing, null and order, or it fails.

The rules are those of the strictest published client: one JSON object per `data: ` line, a blank
line after each, comments only as keep-alives, `[DONE]` last; usage once and in its place; one
terminal reason per choice; keys that are absent rather than null, and keys that never are.
"""

from dataclasses import dataclass, field
from typing import Any, Literal

import orjson

_SAYING = {
    "content",
    "reasoning",
    "reasoning_details",
    "reasoning_content",
    "tool_calls",
    "function_call",
}
FINISH_REASONS = {"stop", "length", "content_filter", "tool_calls", "function_call"}


@dataclass
class CheckedStream:
    """What a well-formed stream said.

    Attributes:
        chunks: Every JSON object, in order.
        texts: Joined text of each choice.
        reasonings: Joined reasoning of the choices that reasoned.
        calls: Of the choices that called tools, each call's id, name and joined arguments.
        finish_reasons: Of each choice.
        usage: The one usage object, if any came.
        error: The object under `error`, if the stream failed.
        num_comments: Keep-alives.
    """

    chunks: list[dict[str, Any]] = field(default_factory=list)
    texts: dict[int, str] = field(default_factory=dict)
    reasonings: dict[int, str] = field(default_factory=dict)
    calls: dict[int, list[dict[str, str]]] = field(default_factory=dict)
    finish_reasons: dict[int, str] = field(default_factory=dict)
    usage: dict[str, Any] | None = None
    error: dict[str, Any] | None = None
    num_comments: int = 0


def split_events(body: bytes) -> tuple[list[bytes], int]:
    """Check the framing byte by byte.

    Returns:
        The payload of every `data:` event, the terminator left out, and the number of comments.
    """
    assert body.endswith(b"\n\n"), "a stream ends with a whole event"
    assert b"\r" not in body, "line ends are plain newlines"
    payloads = []
    num_comments = 0
    for event in body[:-2].split(b"\n\n"):
        assert b"\n" not in event, f"an event is one line: {event!r}"
        if event.startswith(b":"):
            num_comments += 1
            continue
        assert event.startswith(b"data: "), f"neither data nor a comment: {event!r}"
        payload = event.removeprefix(b"data: ")
        assert len(payload.decode().splitlines()) == 1, f"a raw line break inside: {payload!r}"
        payloads.append(payload)
    assert payloads, "the stream is empty"
    assert payloads.pop() == b"[DONE]", "the terminator is missing"
    assert b"[DONE]" not in payloads, "the terminator came twice"
    return payloads, num_comments


def check_stream(
    body: bytes,
    *,
    kind: Literal["chat", "completion"] = "chat",
    num_choices: int = 1,
    include_usage: bool = False,
    openrouter: bool = False,
) -> CheckedStream:
    """Check a whole stream.

    Args:
        body: All bytes of the response's body.
        kind: Which endpoint sent it.
        num_choices: Choices that must have finished.
        include_usage: The request asked for usage as a chunk of its own.
        openrouter: It came from `/api/v1`.
    """
    payloads, num_comments = split_events(body)
    stream = CheckedStream(num_comments=num_comments)
    for payload in payloads:
        chunk = orjson.loads(payload)
        _check_root(chunk, stream, kind)
        _check_usage_place(chunk, stream, include_usage=include_usage, openrouter=openrouter)
        if "error" in chunk:
            assert stream.error is None, "the error came twice"
            stream.error = chunk["error"]
            check_error_object(chunk["error"], openrouter=openrouter)
        else:
            assert chunk["choices"] or chunk.get("usage"), "a chunk says something"
        for choice in chunk["choices"]:
            _check_choice(choice, stream, kind, has_failed="error" in chunk)
        stream.chunks.append(chunk)
    assert sorted(stream.finish_reasons) == list(range(num_choices)), "every choice finishes"
    assert stream.usage is not None or stream.error is not None, "usage is always sent"
    return stream


def check_usage(usage: dict[str, Any]) -> None:
    """Check a usage object: integers everywhere, sums right, parts within their whole."""
    prompt, completion = usage["prompt_tokens"], usage["completion_tokens"]
    cached = usage["prompt_tokens_details"]["cached_tokens"]
    reasoning = usage["completion_tokens_details"]["reasoning_tokens"]
    counts = (prompt, completion, usage["total_tokens"], cached, reasoning)
    assert all(type(count) is int for count in counts)
    assert usage["total_tokens"] == prompt + completion
    assert 0 <= cached <= prompt
    assert 0 <= reasoning <= completion
    assert "cost" not in usage or type(usage["cost"]) in {int, float}


def check_error_object(error: dict[str, Any], *, openrouter: bool = False) -> None:
    """Check what stands under `error`, in a body or in a stream."""
    assert isinstance(error["message"], str)
    assert error["message"], "a message is never empty"
    if openrouter:
        assert type(error["code"]) is int
        assert isinstance(error["metadata"]["error_type"], str)
    else:
        assert error.keys() == {"message", "type", "param", "code"}
        assert isinstance(error["type"], str)
        assert error["param"] is None or isinstance(error["param"], str)
        assert error["code"] is None or isinstance(error["code"], str)


def _check_root(chunk: dict[str, Any], stream: CheckedStream, kind: str) -> None:
    expected = "chat.completion.chunk" if kind == "chat" else "text_completion"
    assert chunk["object"] == expected
    assert type(chunk["created"]) is int
    assert isinstance(chunk["system_fingerprint"], str)
    assert chunk["system_fingerprint"], "the fingerprint is never empty"
    first = stream.chunks[0] if stream.chunks else chunk
    for key in ("id", "created", "model", "system_fingerprint"):
        assert chunk[key] == first[key], f"{key} changed in mid-stream"


def _check_usage_place(
    chunk: dict[str, Any], stream: CheckedStream, *, include_usage: bool, openrouter: bool
) -> None:
    if "usage" not in chunk:
        assert not include_usage or openrouter or "error" in chunk, "usage says null until it comes"
        return
    if chunk["usage"] is None:
        assert include_usage, "null usage was not asked for"
        assert not openrouter, "OpenRouter's clients reject null usage"
        return
    assert stream.usage is None, "usage came twice"
    stream.usage = chunk["usage"]
    check_usage(chunk["usage"])
    assert openrouter or "cost" not in chunk["usage"]
    if "error" in chunk:
        return
    if include_usage:
        assert chunk["choices"] == [], "usage that was asked for has a chunk of its own"
    else:
        assert chunk["choices"][0]["finish_reason"], "usage rides on the last finish"


def _check_choice(
    choice: dict[str, Any], stream: CheckedStream, kind: str, *, has_failed: bool
) -> None:
    index = choice["index"]
    assert type(index) is int
    assert index not in stream.finish_reasons, "nothing follows a finish"
    assert "logprobs" in choice
    if kind == "chat":
        is_first = index not in stream.texts
        text = _check_delta(choice["delta"], index, stream, is_first=is_first, failed=has_failed)
    else:
        text = choice["text"]
    assert isinstance(text, str)
    stream.texts[index] = stream.texts.get(index, "") + text
    reason = choice["finish_reason"]
    if reason is not None:
        assert (reason == "error") is has_failed
        assert has_failed or reason in FINISH_REASONS
        stream.finish_reasons[index] = reason


def _check_delta(
    delta: dict[str, Any], index: int, stream: CheckedStream, *, is_first: bool, failed: bool
) -> str:
    """Check one delta and take its reasoning and calls; return its text."""
    assert delta.keys() <= {"role", *_SAYING}
    if is_first and not failed:
        assert delta == {"role": "assistant", "content": delta["content"]}, "the role comes first"
        return delta["content"] or ""
    assert "role" not in delta or is_first, "the role comes once"
    assert None not in delta.values(), f"no later delta has nulls: {delta}"
    assert len(delta.keys() & {"content", "reasoning", "tool_calls", "function_call"}) <= 1
    if "reasoning" in delta:
        assert not stream.texts[index], "reasoning comes before the text"
        assert delta["reasoning_details"] == [
            {"type": "reasoning.text", "text": delta["reasoning"], "index": 0}
        ]
        stream.reasonings[index] = stream.reasonings.get(index, "") + delta["reasoning"]
    else:
        assert not delta.keys() & {"reasoning_details", "reasoning_content"}
    if "tool_calls" in delta:
        _check_call(delta["tool_calls"], stream.calls.setdefault(index, []))
    if "function_call" in delta:
        call = delta["function_call"]
        calls = stream.calls.setdefault(index, [])
        assert call.keys() == ({"arguments"} if calls else {"name", "arguments"})
        if not calls:
            assert call["arguments"] == ""
            calls.append({"name": call["name"], "arguments": ""})
        calls[0]["arguments"] += call["arguments"]
    text: str = delta.get("content", "")
    return text


def _check_call(deltas: list[dict[str, Any]], calls: list[dict[str, str]]) -> None:
    (delta,) = deltas  # one entry per chunk, so never two of one index
    assert type(delta["index"]) is int
    if delta["index"] == len(calls):
        assert delta.keys() == {"index", "id", "type", "function"}
        assert delta["type"] == "function"
        assert 0 < len(delta["id"]) <= 64
        assert delta["id"] not in {call["id"] for call in calls}
        assert delta["function"].keys() == {"name", "arguments"}
        assert delta["function"]["arguments"] == "", "nothing stands in for arguments"
        calls.append({"id": delta["id"], **delta["function"]})
    else:
        assert delta.keys() == {"index", "function"}
        assert delta["function"].keys() == {"arguments"}
        assert delta["index"] == len(calls) - 1, "only the last call goes on"
        calls[-1]["arguments"] += delta["function"]["arguments"]
