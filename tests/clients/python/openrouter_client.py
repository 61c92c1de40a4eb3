"""OpenRouter's own package, under `/api/v1`."""

import json
from collections.abc import Callable, Mapping
from typing import Any

from conversation import (
    ASK,
    COUNT,
    DESCRIBE,
    FORCED,
    HELLO,
    MODEL,
    RESULT,
    SCHEMA,
    TOO_LONG,
    TOOL,
    picture,
    said,
    shown,
)
from openrouter import OpenRouter


def cases(url: str, key: str) -> Mapping[str, Callable[[], Any]]:
    """The programs."""
    client = OpenRouter(api_key=key, server_url=f"{url}/api/v1")
    stranger = OpenRouter(api_key="sk-wrong-key", server_url=f"{url}/api/v1")

    def send(messages: list[Any], *, by: Any = client, **fields: Any) -> Any:
        return by.chat.send(**{"model": MODEL, "messages": messages, **fields})

    def streamed() -> Any:
        with send(said(HELLO), stream=True) as stream:
            chunks = list(stream)
        deltas = [choice.delta for chunk in chunks for choice in chunk.choices]
        return _shown("".join(delta.content or "" for delta in deltas), chunks[-1].usage)

    def whole() -> Any:
        reply = send(said(HELLO))
        return _shown(reply.choices[0].message.content, reply.usage)

    def called_in_stream() -> Any:
        calls: dict[int, list[str]] = {}
        with send(said(ASK), tools=[TOOL], stream=True) as stream:
            for chunk in stream:
                for delta in chunk.choices[0].delta.tool_calls or []:
                    call = calls.setdefault(int(delta.index), ["", ""])
                    call[0] += delta.function.name or ""
                    call[1] += delta.function.arguments or ""
        return [[name, json.loads(text)] for name, text in calls.values()]

    def told() -> Any:
        message = send(said(ASK), tools=[TOOL]).choices[0].message
        result = {"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": RESULT}
        reply = send([*said(ASK), message, result], tools=[TOOL])
        return reply.choices[0].message.content

    def document() -> Any:
        form = {"name": "weather", "schema": SCHEMA, "strict": True}
        reply = send(said(DESCRIBE), response_format={"type": "json_schema", "json_schema": form})
        return json.loads(reply.choices[0].message.content)

    def left() -> Any:
        with send(said(COUNT), stream=True) as stream:
            texts = (chunk.choices[0].delta.content for chunk in stream)
            return next(text for text in texts if text)

    return {
        "whole": whole,
        "streamed": streamed,
        "called": lambda: _calls(send(said(ASK), tools=[TOOL])),
        "forced": lambda: _calls(send(said(ASK), tools=[TOOL], tool_choice=FORCED)),
        "called in a stream": called_in_stream,
        "told": told,
        "document": document,
        "wrong key": lambda: send(said(HELLO), by=stranger),
        "unknown model": lambda: send(said(HELLO), model="nobody"),
        "picture": lambda: send(picture()).choices[0].message.content,
        "too long": lambda: send(said(TOO_LONG)),
        "left": left,
    }


def _shown(text: str, usage: Any) -> dict[str, Any]:
    return shown(text, (int(usage.prompt_tokens), int(usage.completion_tokens)))


def _calls(reply: Any) -> list[Any]:
    calls = reply.choices[0].message.tool_calls
    return [[call.function.name, json.loads(call.function.arguments)] for call in calls]
