"""A reader of OpenAI event streams that checks every byte: framing, order, nulls, usage, ends.

The rules are those of the strictest published clients. What breaks a client is `Failed`; what only
some of them notice is kept as a concern.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from provider_core.conformance.verdict import Failed, require
from provider_core.conformance.wire_rules import FINISH_REASONS, MAX_CALL_ID, check_usage

DONE = b"[DONE]"


@dataclass(slots=True)
class Stream:
    """What a well-formed stream said.

    Attributes:
        chunks: Every JSON object, in order.
        texts: Joined text of each choice, by index.
        calls: Of each choice, its calls as `{id, name, arguments}` with joined arguments.
        finish_reasons: Of each choice.
        usage: The one usage object, if any came.
        has_own_usage_chunk: It came in a chunk with empty `choices`.
        num_comments: Keep-alives.
        concerns: What the pickiest clients reject.
        arrivals_s: When pieces of the body came, since the request was sent.
        headers: Of the answer, names in lower case.
    """

    chunks: list[dict[str, Any]] = field(default_factory=list)
    texts: dict[int, str] = field(default_factory=dict)
    calls: dict[int, list[dict[str, str]]] = field(default_factory=dict)
    finish_reasons: dict[int, str] = field(default_factory=dict)
    usage: dict[str, Any] | None = None
    has_own_usage_chunk: bool = False
    num_comments: int = 0
    concerns: list[str] = field(default_factory=list)
    arrivals_s: tuple[float, ...] = ()
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """Of the first choice."""
        return self.texts.get(0, "")

    def count(self, name: str) -> int:
        """One count of the usage.

        Raises:
            Failed: No usage came.
        """
        if self.usage is None:
            raise Failed("the stream has no usage")
        return int(self.usage[name])


def split_events(body: bytes) -> tuple[list[bytes], int]:
    """Take a body apart and check its framing.

    Returns:
        The payload of every `data:` event, the terminator left out, and the number of comments.

    Raises:
        Failed: A published client would stumble over it.
    """
    text = body.replace(b"\r\n", b"\n")
    require(b"\r" not in text, "a lone carriage return is in the stream")
    require(text.endswith(b"\n\n"), f"the stream ends in mid-event: {text[-60:]!r}")
    payloads: list[bytes] = []
    num_comments = 0
    for event in text.strip(b"\n").split(b"\n\n"):
        lines = [line for line in event.split(b"\n") if line]
        if all(line.startswith(b":") for line in lines):
            num_comments += 1
            continue
        data = [line for line in lines if line.startswith(b"data:")]
        require(data, f"an event without data: {event[:80]!r}")
        require(len(data) == 1, f"an event of {len(data)} data lines: {event[:80]!r}")
        require(data[0].startswith(b"data: "), "a data line has no space after its colon")
        others = [line for line in lines if not line.startswith((b"data:", b":"))]
        require(not others, f"a field that OpenAI's streams do not have: {others[:1]}")
        payloads.append(data[0].removeprefix(b"data: "))
    require(payloads, "the stream is empty")
    require(payloads.pop() == DONE, "the stream does not end with data: [DONE]")
    require(DONE not in payloads, "data: [DONE] came twice")
    return payloads, num_comments


def read_stream(body: bytes, *, kind: str = "chat", num_choices: int = 1) -> Stream:
    """Check a whole stream.

    Args:
        body: All bytes of the answer's body.
        kind: `chat` or `text`.
        num_choices: How many must have finished.

    Raises:
        Failed: A rule is broken.
    """
    payloads, num_comments = split_events(body)
    stream = Stream(num_comments=num_comments)
    for payload in payloads:
        try:
            chunk = orjson.loads(payload)
        except orjson.JSONDecodeError as error:
            raise Failed(f"an event is not one JSON object: {payload[:80]!r}") from error
        require(isinstance(chunk, dict), f"an event is not an object: {payload[:80]!r}")
        if chunk.get("error"):
            raise Failed(f"the stream broke off with an error: {chunk['error']}")
        _take_root(chunk, stream, kind)
        for choice in chunk["choices"]:
            _take_choice(choice, stream, kind)
        stream.chunks.append(chunk)
    done, due = sorted(stream.finish_reasons), list(range(num_choices))
    require(done == due, f"choices {done} have a finish_reason, and {due} are due")
    return stream


def _take_root(chunk: dict[str, Any], stream: Stream, kind: str) -> None:
    expected = "chat.completion.chunk" if kind == "chat" else "text_completion"
    require(chunk.get("object") == expected, f"a chunk's object is {chunk.get('object')!r}")
    require(type(chunk.get("created")) is int, "a chunk's created is not an integer")
    require(isinstance(chunk.get("choices"), list), "a chunk has no list of choices")
    first = stream.chunks[0] if stream.chunks else chunk
    for name in ("id", "created", "model"):
        require(chunk.get(name) == first.get(name), f"{name} changes in mid-stream")
    fingerprint = chunk.get("system_fingerprint")
    if not (isinstance(fingerprint, str) and fingerprint):
        _concern(stream, "system_fingerprint is not a string: OpenRouter's TypeScript SDK rejects")
    usage = chunk.get("usage")
    if usage is None:
        require(chunk["choices"], "a chunk says nothing")
        return
    require(stream.usage is None, "usage came twice: clients that add it up count double")
    check_usage(usage)
    stream.usage = usage
    stream.has_own_usage_chunk = not chunk["choices"]


def _take_choice(choice: Any, stream: Stream, kind: str) -> None:  # any server's JSON
    index = choice.get("index")
    require(type(index) is int, f"a choice's index is {index!r}")
    require(index not in stream.finish_reasons, f"choice {index} goes on after its finish_reason")
    require("finish_reason" in choice, "a choice has no finish_reason, not even null")
    reason = choice["finish_reason"]
    require(reason is None or reason in FINISH_REASONS, f"finish_reason is {reason!r}")
    text = choice.get("text") if kind == "text" else _take_delta(choice, index, stream)
    require(text is None or isinstance(text, str), f"a piece of text is {text!r}")
    stream.texts[index] = stream.texts.get(index, "") + (text or "")
    if reason is not None:
        stream.finish_reasons[index] = reason


def _take_delta(choice: Any, index: int, stream: Stream) -> Any:  # any server's JSON
    delta = choice.get("delta")
    require(isinstance(delta, dict), "a choice has no delta")
    if "role" in delta:
        require(delta["role"] == "assistant", f"delta.role is {delta['role']!r}")
        if index in stream.texts:
            _concern(stream, "delta.role comes again: OpenAI's helper joins them")
    if "tool_calls" in delta:
        require(delta["tool_calls"], "delta.tool_calls is null or empty, not absent")
        for call in delta["tool_calls"]:
            _take_call(call, stream.calls.setdefault(index, []))
    return delta.get("content")


def _take_call(delta: Any, calls: list[dict[str, str]]) -> None:  # any server's JSON
    index = delta.get("index")
    require(type(index) is int, f"a call's index is {index!r}")
    function = delta.get("function") or {}
    if index == len(calls):
        require(delta.get("type") == "function", "a call's first delta has no type")
        size = len(delta.get("id") or "")
        require(0 < size <= MAX_CALL_ID, f"a call's id has {size} characters")
        require(
            delta["id"] not in {call["id"] for call in calls}, f"two calls have id {delta['id']}"
        )
        require(isinstance(function.get("name"), str), "a call's first delta has no name")
        arguments = function.get("arguments") or ""
        calls.append({"id": delta["id"], "name": function["name"], "arguments": arguments})
        return
    require(0 <= index < len(calls), f"a call begins with index {index}, and {len(calls)} is due")
    for name, holder in (("id", delta), ("type", delta), ("name", function)):
        require(name not in holder, f"a call's {name} comes again: clients join the two")
    require(isinstance(function.get("arguments"), str), "a call goes on without arguments")
    calls[index]["arguments"] += function["arguments"]


def _concern(stream: Stream, reason: str) -> None:
    if reason not in stream.concerns:
        stream.concerns.append(reason)
