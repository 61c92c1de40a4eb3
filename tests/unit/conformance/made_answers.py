"""Well-formed answers of an OpenAI-compatible server, for tests that spoil them."""

from typing import Any

import orjson

USAGE = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}


def completion(**fields: Any) -> dict[str, Any]:
    """A whole chat completion."""
    message = {"role": "assistant", "content": "Hello!", "refusal": None}
    choice = {"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}
    root = {"id": "gen-1", "object": "chat.completion", "created": 1, "model": "m"}
    return {**root, "choices": [choice], "usage": dict(USAGE), **fields}


def chunk(delta: dict[str, Any], reason: str | None = None, **fields: Any) -> dict[str, Any]:
    """A chunk of a streamed chat."""
    choice = {"index": 0, "delta": delta, "finish_reason": reason, "logprobs": None}
    return {
        "id": "gen-1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "m",
        "system_fingerprint": "fp",
        "choices": [choice],
        **fields,
    }


def chunks() -> list[dict[str, Any]]:
    """A whole streamed chat with usage in a chunk of its own."""
    return [
        chunk({"role": "assistant", "content": ""}),
        chunk({"content": "Hel"}),
        chunk({"content": "lo!"}),
        chunk({}, "stop"),
        chunk({}) | {"choices": [], "usage": dict(USAGE)},
    ]


def call_chunks() -> list[dict[str, Any]]:
    """A streamed chat with two calls."""

    def begin(index: int, name: str) -> dict[str, Any]:
        function = {"name": name, "arguments": ""}
        call = {"index": index, "id": f"call_{index}", "type": "function", "function": function}
        return chunk({"tool_calls": [call]})

    def go_on(index: int, arguments: str) -> dict[str, Any]:
        return chunk({"tool_calls": [{"index": index, "function": {"arguments": arguments}}]})

    return [
        chunk({"role": "assistant", "content": None}),
        begin(0, "get_weather"),
        go_on(0, '{"city":'),
        go_on(0, ' "Rome"}'),
        begin(1, "get_time"),
        go_on(1, "{}"),
        chunk({}, "tool_calls"),
    ]


def events(objects: list[dict[str, Any]]) -> bytes:
    """Objects as a stream that ends with [DONE]."""
    payloads = [orjson.dumps(each) for each in objects] + [b"[DONE]"]
    return b"".join(b"data: " + payload + b"\n\n" for payload in payloads)
