"""The openai package."""

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
from openai import OpenAI


def cases(url: str, key: str) -> Mapping[str, Callable[[], Any]]:
    """The programs."""

    def create(messages: list[Any], *, with_key: str = key, **fields: Any) -> Any:
        client = OpenAI(base_url=f"{url}/v1", api_key=with_key, max_retries=0)
        return client.chat.completions.create(**{"model": MODEL, "messages": messages, **fields})

    def joined(messages: list[Any], **fields: Any) -> Any:
        client = OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0)
        options = {"model": MODEL, "messages": messages, **fields}
        with client.chat.completions.stream(
            **options, stream_options={"include_usage": True}
        ) as stream:
            return stream.get_final_completion()

    def told() -> Any:
        message = create(said(ASK), tools=[TOOL]).choices[0].message
        result = {"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": RESULT}
        reply = create([*said(ASK), message, result], tools=[TOOL])
        return reply.choices[0].message.content

    def document() -> Any:
        form = {"name": "weather", "schema": SCHEMA, "strict": True}
        reply = create(said(DESCRIBE), response_format={"type": "json_schema", "json_schema": form})
        return json.loads(reply.choices[0].message.content)

    def left() -> Any:
        with create(said(COUNT), stream=True) as stream:
            texts = (chunk.choices[0].delta.content for chunk in stream)
            return next(text for text in texts if text)

    return {
        "whole": lambda: _seen(create(said(HELLO))),
        "streamed": lambda: _seen(joined(said(HELLO))),
        "called": lambda: _calls(create(said(ASK), tools=[TOOL])),
        "forced": lambda: _calls(create(said(ASK), tools=[TOOL], tool_choice=FORCED)),
        "called in a stream": lambda: _calls(joined(said(ASK), tools=[TOOL])),
        "told": told,
        "document": document,
        "wrong key": lambda: create(said(HELLO), with_key="sk-wrong-key"),
        "unknown model": lambda: create(said(HELLO), model="nobody"),
        "picture": lambda: _seen(create(picture()))["text"],
        "too long": lambda: create(said(TOO_LONG)),
        "left": left,
    }


def _seen(reply: Any) -> dict[str, Any]:
    usage = reply.usage
    return shown(reply.choices[0].message.content, (usage.prompt_tokens, usage.completion_tokens))


def _calls(reply: Any) -> list[Any]:
    calls = reply.choices[0].message.tool_calls
    return [[call.function.name, json.loads(call.function.arguments)] for call in calls]
