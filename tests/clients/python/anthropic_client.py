"""The anthropic package."""

import json
from collections.abc import Callable, Mapping
from typing import Any

from anthropic import Anthropic
from conversation import (
    ASK,
    COUNT,
    DESCRIBE,
    HELLO,
    MODEL,
    PICTURE,
    RESULT,
    SCHEMA,
    TOO_LONG,
    said,
    shown,
)

TOOLS = [{"name": "Weather", "description": "The weather.", "input_schema": SCHEMA}]


def cases(url: str, key: str) -> Mapping[str, Callable[[], Any]]:
    """The programs."""

    def messages(with_key: str = key) -> Any:
        return Anthropic(base_url=url, api_key=with_key, max_retries=0).messages

    def body(turns: list[Any], **fields: Any) -> dict[str, Any]:
        return {"model": MODEL, "max_tokens": 1000, "messages": turns, **fields}

    def create(turns: list[Any], **fields: Any) -> Any:
        return messages().create(**body(turns, **fields))

    def joined(turns: list[Any], **fields: Any) -> Any:
        with messages().stream(**body(turns, **fields)) as stream:
            return stream.get_final_message()

    def told() -> Any:
        message = create(said(ASK), tools=TOOLS)
        results = [
            {"type": "tool_result", "tool_use_id": block.id, "content": RESULT}
            for block in message.content
            if block.type == "tool_use"
        ]
        turns = [
            *said(ASK),
            {"role": "assistant", "content": message.content},
            {"role": "user", "content": results},
        ]
        return _text(create(turns, tools=TOOLS))

    def document() -> Any:
        form = {"format": {"type": "json_schema", "schema": SCHEMA}}
        return json.loads(_text(create(said(DESCRIBE), output_config=form)))

    def picture() -> Any:
        data = PICTURE.partition(",")[2]
        source = {"type": "base64", "media_type": "image/png", "data": data}
        return _text(create([{"role": "user", "content": [{"type": "image", "source": source}]}]))

    def left() -> Any:
        with messages().stream(**body(said(COUNT))) as stream:
            return next(iter(stream.text_stream))

    return {
        "whole": lambda: _seen(create(said(HELLO))),
        "streamed": lambda: _seen(joined(said(HELLO))),
        "called": lambda: _calls(create(said(ASK), tools=TOOLS)),
        "forced": lambda: _calls(
            create(said(ASK), tools=TOOLS, tool_choice={"type": "tool", "name": "Weather"})
        ),
        "called in a stream": lambda: _calls(joined(said(ASK), tools=TOOLS)),
        "told": told,
        "document": document,
        "wrong key": lambda: messages("sk-wrong-key").create(**body(said(HELLO))),
        "unknown model": lambda: create(said(HELLO), model="nobody"),
        "picture": picture,
        "too long": lambda: create(said(TOO_LONG)),
        "left": left,
    }


def _text(message: Any) -> str:
    return "".join(block.text for block in message.content if block.type == "text")


def _seen(message: Any) -> dict[str, Any]:
    return shown(_text(message), (message.usage.input_tokens, message.usage.output_tokens))


def _calls(message: Any) -> list[Any]:
    return [[block.name, block.input] for block in message.content if block.type == "tool_use"]
