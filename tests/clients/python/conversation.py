"""What every client says in turn, in OpenAI's words; see `tests/clients/test_clients.py`."""

from typing import Any

MODEL = "test-model"
HELLO = "Say hello."
ASK = "What is the weather in Rome?"
DESCRIBE = "Describe the weather."
TOO_LONG = "word " * 1000
COUNT = "Count for a long time."
RESULT = '{"sky": "blue"}'
PICTURE = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9"
    "awAAAABJRU5ErkJggg=="
)
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
    "required": ["city", "days"],
    "additionalProperties": False,
}
TOOL: dict[str, Any] = {
    "type": "function",
    "function": {"name": "Weather", "description": "The weather.", "parameters": SCHEMA},
}
FORCED = {"type": "function", "function": {"name": "Weather"}}


def said(text: str, role: str = "user") -> list[Any]:
    """One turn."""
    return [{"role": role, "content": text}]


def shown(text: str | None, usage: tuple[int, int]) -> dict[str, Any]:
    """A text and what it used: input and output tokens."""
    return {"text": text, "usage": list(usage)}


def picture() -> list[Any]:
    """A turn with an image."""
    image = {"type": "image_url", "image_url": {"url": PICTURE}}
    return [{"role": "user", "content": [{"type": "text", "text": HELLO}, image]}]
