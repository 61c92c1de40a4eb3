"""LangChain's `ChatOpenAI`, as its users point it at another server."""

from collections.abc import Callable, Mapping
from typing import Any

from conversation import (
    ASK,
    COUNT,
    DESCRIBE,
    HELLO,
    MODEL,
    RESULT,
    SCHEMA,
    TOO_LONG,
    TOOL,
    picture,
    shown,
)
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_openai import ChatOpenAI


def cases(url: str, key: str) -> Mapping[str, Callable[[], Any]]:
    """The programs."""

    def model(**fields: Any) -> ChatOpenAI:
        options = {"base_url": f"{url}/v1", "api_key": key, "model": MODEL, "max_retries": 0}
        return ChatOpenAI(**{**options, **fields})

    with_tools = model().bind_tools([TOOL])

    def streamed() -> Any:
        chunks = list(model(stream_usage=True).stream(HELLO))
        return _seen(sum(chunks[1:], chunks[0]))

    def called_in_stream() -> Any:
        chunks = list(with_tools.stream(ASK))
        return _calls(sum(chunks[1:], chunks[0]))

    def told() -> Any:
        question = HumanMessage(ASK)
        answer = with_tools.invoke([question])
        result = ToolMessage(RESULT, tool_call_id=answer.tool_calls[0]["id"])
        return with_tools.invoke([question, answer, result]).content

    def document() -> Any:
        schema = {"title": "weather", "description": "The weather.", **SCHEMA}
        asking = model().with_structured_output(schema, method="json_schema", strict=True)
        return asking.invoke(DESCRIBE)

    def left() -> Any:
        stream = model().stream(COUNT)
        text = next(chunk.content for chunk in stream if chunk.content)
        stream.close()
        return text

    return {
        "whole": lambda: _seen(model().invoke(HELLO)),
        "streamed": streamed,
        "called": lambda: _calls(with_tools.invoke(ASK)),
        "forced": lambda: _calls(model().bind_tools([TOOL], tool_choice="Weather").invoke(ASK)),
        "called in a stream": called_in_stream,
        "told": told,
        "document": document,
        "wrong key": lambda: model(api_key="sk-wrong-key").invoke(HELLO),
        "unknown model": lambda: model(model="nobody").invoke(HELLO),
        "picture": lambda: model().invoke([HumanMessage(picture()[0]["content"])]).content,
        "too long": lambda: model().invoke(TOO_LONG),
        "left": left,
    }


def _seen(message: Any) -> dict[str, Any]:
    usage = message.usage_metadata
    return shown(message.content, (usage["input_tokens"], usage["output_tokens"]))


def _calls(message: Any) -> list[Any]:
    return [[call["name"], call["args"]] for call in message.tool_calls]
