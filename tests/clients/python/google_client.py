"""The google-genai package."""

import json
from base64 import b64decode
from collections.abc import Callable, Mapping
from typing import Any

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
    shown,
)
from google import genai
from google.genai import types

WEATHER: Any = {"name": "Weather", "description": "The weather.", "parametersJsonSchema": SCHEMA}
TOOLS = {"tools": [{"function_declarations": [WEATHER]}]}
FORCED = {"function_calling_config": {"mode": "ANY", "allowed_function_names": ["Weather"]}}


def cases(url: str, key: str) -> Mapping[str, Callable[[], Any]]:
    """The programs."""
    # A client closes its connections when it is collected, so it must outlive its streams.
    client = genai.Client(api_key=key, http_options=types.HttpOptions(base_url=url))
    stranger = genai.Client(api_key="sk-wrong-key", http_options=types.HttpOptions(base_url=url))

    def ask(contents: Any, config: Any = None, *, model: str = MODEL, by: Any = client) -> Any:
        return by.models.generate_content(model=model, contents=contents, config=config)

    def stream(contents: Any, config: Any = None) -> Any:
        return client.models.generate_content_stream(model=MODEL, contents=contents, config=config)

    def streamed() -> Any:
        pieces = list(stream(HELLO))
        return _seen("".join(piece.text or "" for piece in pieces), pieces[-1])

    def whole() -> Any:
        reply = ask(HELLO)
        return _seen(reply.text, reply)

    def told() -> Any:
        first = ask(ASK, TOOLS)
        response = {"name": "Weather", "response": json.loads(RESULT)}
        turns = [
            {"role": "user", "parts": [{"text": ASK}]},
            first.candidates[0].content,
            {"role": "user", "parts": [{"function_response": response}]},
        ]
        return ask(turns, TOOLS).text

    def document() -> Any:
        form = {"response_mime_type": "application/json", "response_json_schema": SCHEMA}
        return json.loads(ask(DESCRIBE, form).text)

    def picture() -> Any:
        data = b64decode(PICTURE.partition(",")[2])
        return ask([HELLO, types.Part.from_bytes(data=data, mime_type="image/png")]).text

    def left() -> Any:
        pieces = stream(COUNT)
        text = next(pieces).text
        pieces.close()
        return text

    return {
        "whole": whole,
        "streamed": streamed,
        "called": lambda: _calls([ask(ASK, TOOLS)]),
        "forced": lambda: _calls([ask(ASK, {**TOOLS, "tool_config": FORCED})]),
        "called in a stream": lambda: _calls(list(stream(ASK, TOOLS))),
        "told": told,
        "document": document,
        "wrong key": lambda: ask(HELLO, by=stranger),
        "unknown model": lambda: ask(HELLO, model="nobody"),
        "picture": picture,
        "too long": lambda: ask(TOO_LONG),
        "left": left,
    }


def _seen(text: str, last: Any) -> dict[str, Any]:
    usage = last.usage_metadata
    return shown(text, (usage.prompt_token_count, usage.candidates_token_count))


def _calls(pieces: list[Any]) -> list[Any]:
    return [[call.name, call.args] for piece in pieces for call in piece.function_calls or []]
