"""LiteLLM, as its users point it at a server that speaks OpenAI's dialect."""

import json
from collections.abc import Callable, Mapping
from typing import Any

import litellm
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

litellm.telemetry = False
litellm.suppress_debug_info = True


def cases(url: str, key: str) -> Mapping[str, Callable[[], Any]]:
    """The programs."""

    def complete(messages: list[Any], **fields: Any) -> Any:
        options = {"api_base": f"{url}/v1", "api_key": key, "model": f"openai/{MODEL}"}
        return litellm.completion(messages=messages, max_retries=0, **{**options, **fields})

    def whole() -> Any:
        return _seen(complete(said(HELLO)))

    def streamed() -> Any:
        options = {"include_usage": True}
        chunks = list(complete(said(HELLO), stream=True, stream_options=options))
        return _seen(litellm.stream_chunk_builder(chunks))

    def called(**fields: Any) -> Callable[[], Any]:
        return lambda: _calls(complete(said(ASK), tools=[TOOL], **fields))

    def called_in_stream() -> Any:
        chunks = list(complete(said(ASK), tools=[TOOL], stream=True))
        return _calls(litellm.stream_chunk_builder(chunks))

    def told() -> Any:
        message = complete(said(ASK), tools=[TOOL]).choices[0].message
        result = {"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": RESULT}
        reply = complete([*said(ASK), message.model_dump(), result], tools=[TOOL])
        return reply.choices[0].message.content

    def document() -> Any:
        form = {
            "type": "json_schema",
            "json_schema": {"name": "weather", "schema": SCHEMA, "strict": True},
        }
        return json.loads(complete(said(DESCRIBE), response_format=form).choices[0].message.content)

    def left() -> Any:
        stream = complete(said(COUNT), stream=True)
        text = next(iter(stream)).choices[0].delta.content
        stream.completion_stream.close()
        return text

    return {
        "whole": whole,
        "streamed": streamed,
        "called": called(),
        "forced": called(tool_choice=FORCED),
        "called in a stream": called_in_stream,
        "told": told,
        "document": document,
        "wrong key": lambda: complete(said(HELLO), api_key="sk-wrong-key"),
        "unknown model": lambda: complete(said(HELLO), model="openai/nobody"),
        "picture": lambda: _seen(complete(picture()))["text"],
        "too long": lambda: complete(said(TOO_LONG)),
        "left": left,
    }


def _seen(reply: Any) -> dict[str, Any]:
    usage = reply.usage
    return shown(reply.choices[0].message.content, (usage.prompt_tokens, usage.completion_tokens))


def _calls(reply: Any) -> list[Any]:
    calls = reply.choices[0].message.tool_calls
    return [[call.function.name, json.loads(call.function.arguments)] for call in calls]
