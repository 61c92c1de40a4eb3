"""Anthropic's form: `POST /v1/messages`, whole, streamed and refused."""

from typing import Any

import orjson

from provider_core.conformance.check import Group
from provider_core.conformance.exchange import Reply
from provider_core.conformance.probe import Probe
from provider_core.conformance.verdict import NotApplicable, require

GROUP = Group("anthropic")

_VERSION = {"anthropic-version": "2023-06-01"}
_KEY_HEADER = ("x-api-key", "")
_STOP_REASONS = {"end_turn", "max_tokens", "stop_sequence", "tool_use", "refusal"}


async def _post(probe: Probe, path: str = "", **fields: Any) -> Reply:
    """Ask.

    Raises:
        NotApplicable: The path is unknown, or guarded by other headers than Anthropic's.
    """
    url = f"{probe.endpoint.root}/v1/messages{path}"
    messages = [{"role": "user", "content": "Hello!"}]
    body = {"model": probe.subject.model, "max_tokens": 16, "messages": messages, **fields}
    reply = await probe.send("POST", url, json=body, headers=_VERSION, key_header=_KEY_HEADER)
    is_theirs = b'"type":"error"' in reply.body.replace(b" ", b"")
    if reply.status in {401, 403, 404, 405} and not is_theirs:
        raise NotApplicable(f"there is no /v1/messages: {reply.status}")
    return reply


def split_named_events(body: bytes) -> list[dict[str, Any]]:
    """Take a stream of Anthropic's apart and check that each event is named as its type.

    Raises:
        Failed: The framing is not theirs.
    """
    events = []
    for event in body.replace(b"\r\n", b"\n").strip(b"\n").split(b"\n\n"):
        lines = event.split(b"\n")
        names = [line[7:] for line in lines if line.startswith(b"event: ")]
        data = [line[6:] for line in lines if line.startswith(b"data: ")]
        require(len(names) == len(data) == 1, f"not one name and one data line: {event[:80]!r}")
        parsed = orjson.loads(data[0])
        require(parsed.get("type") == names[0].decode(), f"{names[0]!r} holds {parsed!r}")
        events.append(parsed)
    return events


@GROUP.check("whole", "A whole message")
async def whole(probe: Probe) -> str:
    """Shape, stop reason and counts."""
    reply = await _post(probe)
    require(reply.status == 200, f"status {reply.status}: {reply.excerpt}")
    message = reply.json()
    require(message["type"] == "message" and message["role"] == "assistant", "not a message")
    require(message["stop_reason"] in _STOP_REASONS, f"stop_reason {message['stop_reason']!r}")
    usage = message["usage"]
    for name in ("input_tokens", "output_tokens"):
        require(type(usage[name]) is int, f"usage.{name} is {usage[name]!r}")
    return f"{usage['input_tokens']} + {usage['output_tokens']} tokens, {message['stop_reason']}"


@GROUP.check("stream", "A streamed message")
async def stream(probe: Probe) -> str:
    """Named events in their order, one block at a time, counts at both ends."""
    reply = await _post(probe, stream=True)
    require(reply.status == 200, f"status {reply.status}: {reply.excerpt}")
    events = [event for event in split_named_events(reply.body) if event["type"] != "ping"]
    types = [event["type"] for event in events]
    require(types[0] == "message_start", f"the first event is {types[0]}")
    require(types[-2:] == ["message_delta", "message_stop"], f"the last events are {types[-2:]}")
    require(events[0]["message"]["usage"]["input_tokens"] >= 0, "message_start counts no input")
    open_block: int | None = None
    for event in events[1:-2]:
        if event["type"] == "content_block_start":
            require(open_block is None, "a block begins inside another")
            open_block = event["index"]
        else:
            require(event["index"] == open_block, f"{event['type']} of a block that is not open")
            open_block = None if event["type"] == "content_block_stop" else open_block
    require(open_block is None, "a block does not end")
    require(events[-2]["usage"]["output_tokens"] >= 0, "message_delta counts no output")
    return f"{len(events)} events"


@GROUP.check("count", "POST /v1/messages/count_tokens")
async def count(probe: Probe) -> str:
    """The same number as in the answer's usage."""
    url = f"{probe.endpoint.root}/v1/messages/count_tokens"
    messages = [{"role": "user", "content": "Hello!"}]
    body = {"model": probe.subject.model, "messages": messages}
    reply = await probe.send("POST", url, json=body, headers=_VERSION, key_header=_KEY_HEADER)
    if reply.status in {401, 403, 404, 405}:
        raise NotApplicable(f"it is not offered: {reply.status}")
    counted = reply.json()["input_tokens"]
    usage = (await _post(probe)).json()["usage"]
    used = usage["input_tokens"] + usage.get("cache_read_input_tokens", 0)
    require(counted == used, f"{counted} counted, {used} used")
    return f"{counted} tokens"


@GROUP.check("errors", "Refusals in Anthropic's form")
async def errors(probe: Probe) -> str:
    """A value out of range, and an unknown model."""
    await _post(probe)
    expected: list[tuple[dict[str, Any], int, str]] = [
        ({"temperature": 9}, 400, "invalid_request_error"),
        ({"model": "no-such-model-here"}, 404, "not_found_error"),
    ]
    for fields, status, kind in expected:
        reply = await _post(probe, **fields)
        require(reply.status == status, f"status {reply.status}: {reply.excerpt}")
        body = reply.json()
        require(body["type"] == "error", f"type is {body['type']!r}")
        require(body["error"]["type"] == kind, f"error.type is {body['error']['type']!r}")
        require(body["error"]["message"], "error.message is empty")
    return "400 and 404"
