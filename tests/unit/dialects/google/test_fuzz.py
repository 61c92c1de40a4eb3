"""Whatever stands in a body, it is read or refused; nothing else happens."""

from typing import Any

from hypothesis import given

from provider_core.dialects.google import parse_count, parse_generate
from provider_core.dialects.google.embeddings import parse_batch_embed, parse_embed
from provider_core.settings import LimitSettings
from tests.changed_json import changed, read_or_refused

LIMITS = LimitSettings()
DOCUMENTS: list[dict[str, Any]] = [
    {
        "contents": [
            {"role": "user", "parts": [{"text": "a"}]},
            {
                "role": "model",
                "parts": [
                    {"text": "t", "thought": True, "thoughtSignature": "c2ln"},
                    {"functionCall": {"name": "f", "args": {"a": [1]}, "id": "c"}},
                ],
            },
            {
                "role": "user",
                "parts": [{"functionResponse": {"name": "f", "response": {"output": [1]}}}],
            },
            {"parts": [{"inlineData": {"mimeType": "image/png", "data": "AAAA"}}]},
        ],
        "systemInstruction": {"parts": [{"text": "s"}]},
        "tools": [
            {
                "functionDeclarations": [
                    {
                        "name": "f",
                        "description": "d",
                        "parameters": {
                            "type": "OBJECT",
                            "properties": {"a": {"type": "ARRAY", "items": {"type": "STRING"}}},
                            "required": ["a"],
                            "propertyOrdering": ["a"],
                        },
                    },
                    {"name": "g", "parametersJsonSchema": {"type": "object"}},
                ]
            }
        ],
        "toolConfig": {"functionCallingConfig": {"mode": "ANY", "allowedFunctionNames": ["f"]}},
        "generationConfig": {
            "temperature": 1,
            "topK": 4.0,
            "candidateCount": 2,
            "stopSequences": ["a"],
            "responseMimeType": "application/json",
            "responseSchema": {"anyOf": [{"type": "STRING", "enum": ["a"], "minLength": "1"}]},
            "thinkingConfig": {"thinkingBudget": 5, "thinkingLevel": "LOW"},
            "responseLogprobs": True,
            "logprobs": 3,
        },
    }
]
EMBED: list[dict[str, Any]] = [
    {
        "requests": [
            {"content": {"parts": [{"text": "a"}]}, "taskType": "CLUSTERING"},
            {"content": {"parts": [{"text": "b"}]}, "outputDimensionality": 5},
        ],
        "content": {"parts": [{"text": "a"}]},
        "taskType": "CLUSTERING",
        "outputDimensionality": 5,
    }
]


@given(changed(DOCUMENTS))
def test_bug_10_any_body_is_read_or_refused(body: dict[str, Any]) -> None:
    """With a message and a field, whole or inside a request to count."""
    for chat in (
        read_or_refused(lambda: parse_generate(body, "m", LIMITS, stream=False)),
        read_or_refused(lambda: parse_count({"generateContentRequest": body}, "m", LIMITS)),
    ):
        assert chat is None or all(message["role"] for message in chat.messages)
        assert chat is None or len(chat.messages) > 0


@given(changed(EMBED))
def test_bug_10_any_embeddings_body_is_read_or_refused(body: dict[str, Any]) -> None:
    """With a message and a field."""
    for wanted in (
        read_or_refused(lambda: parse_embed(body, "m")),
        read_or_refused(lambda: parse_batch_embed(body, "m", LIMITS)),
    ):
        assert wanted is None or all(wanted.inputs)
