"""Bodies of Google's requests, for the tests of their parser."""

from typing import Any

from provider_core.dialects.chat_request import ChatRequest
from provider_core.dialects.google import parse_generate
from provider_core.settings import LimitSettings

LIMITS = LimitSettings()
LOOK = {"name": "look", "description": "d", "parameters": {"type": "OBJECT"}}
SCHEMA = {"type": "OBJECT", "properties": {"a": {"type": "STRING"}}}
TOOLS = [{"functionDeclarations": [LOOK, {"name": "no.args:v1"}]}]


def parse(contents: Any = "hi", *, config: Any = None, **fields: Any) -> ChatRequest:
    """Parse a body; contents may be the text of a user."""
    if isinstance(contents, str):
        contents = [user({"text": contents})]
    body = {"contents": contents, "generationConfig": config, **fields}
    return parse_generate(body, "m", LIMITS, stream=False)


def user(*parts: Any) -> dict[str, Any]:
    """A user's content."""
    return {"role": "user", "parts": list(parts)}


def model(*parts: Any) -> dict[str, Any]:
    """A model's content."""
    return {"role": "model", "parts": list(parts)}


def call(name: str = "look", call_id: str | None = None, **arguments: Any) -> dict[str, Any]:
    """A call that a model made."""
    value = {"name": name, "args": arguments, "id": call_id}
    return {"functionCall": {key: item for key, item in value.items() if item is not None}}


def answer(result: Any, name: str = "look", call_id: str | None = None) -> dict[str, Any]:
    """What a function gave."""
    return {"functionResponse": {"name": name, "response": result, "id": call_id}}
