"""Whatever stands in a body, it is read or refused; nothing else happens."""

from typing import Any

from hypothesis import given

from provider_core.dialects.anthropic import parse_count, parse_create
from provider_core.settings import LimitSettings
from tests.changed_json import changed, read_or_refused

LIMITS = LimitSettings()
DOCUMENTS: list[dict[str, Any]] = [
    {
        "model": "m",
        "max_tokens": 5,
        "system": [{"type": "text", "text": "s"}],
        "messages": [
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}},
                    {
                        "type": "document",
                        "title": "t",
                        "source": {"type": "content", "content": [{"type": "text", "text": "d"}]},
                    },
                    {"type": "image", "source": {"type": "url", "url": "https://x/y.png"}},
                ],
            },
            {
                "role": "assistant",
                "content": [
                    {"type": "thinking", "thinking": "t", "signature": "s"},
                    {"type": "tool_use", "id": "c", "name": "f", "input": {"a": [1]}},
                ],
            },
            {
                "role": "user",
                "content": [
                    {
                        "type": "tool_result",
                        "tool_use_id": "c",
                        "is_error": True,
                        "content": [{"type": "text", "text": "r"}],
                    }
                ],
            },
            {"role": "system", "content": "s"},
        ],
        "tools": [{"name": "f", "description": "d", "input_schema": {}, "strict": False}],
        "tool_choice": {"type": "tool", "name": "f", "disable_parallel_tool_use": True},
        "thinking": {"type": "enabled", "budget_tokens": 9, "display": "omitted"},
        "output_config": {"effort": "low", "format": {"type": "json_schema", "schema": {}}},
        "stop_sequences": ["a"],
        "metadata": {"user_id": "u"},
        "stream": True,
        "temperature": 1,
        "top_p": 0.5,
        "top_k": 5,
    }
]


@given(changed(DOCUMENTS))
def test_bug_10_any_body_is_read_or_refused(body: dict[str, Any]) -> None:
    """With a message and a field, and for `count_tokens` alike."""
    for chat in (
        read_or_refused(lambda: parse_create(body, LIMITS)),
        read_or_refused(lambda: parse_count(body, LIMITS)),
    ):
        assert chat is None or all(message["role"] for message in chat.messages)
        assert chat is None or len(chat.messages) > 0
