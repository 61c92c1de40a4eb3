"""Known fields that are not served: refused if they ask for something, else accepted."""

from typing import Any

import pytest

from provider_core.errors import UnsupportedParameter
from tests.unit.dialects.request_bodies import (
    chat,
    completion,
    refused_chat,
    refused_completion,
)

TOOL = {"type": "function", "function": {"name": "f", "parameters": {}}}
CHAT_ONLY: list[tuple[str, Any]] = [
    ("tools", [TOOL]),
    ("tool_choice", "required"),
    ("tool_choice", {"type": "function", "function": {"name": "f"}}),
    ("functions", [{"name": "f"}]),
    ("function_call", {"name": "f"}),
    ("response_format", {"type": "json_object"}),
    ("response_format", {"type": "json_schema", "json_schema": {"name": "x", "schema": {}}}),
    ("response_format", "json"),
    ("response_format", {"type": 5}),
    ("structured_outputs", {"json": {}}),
    ("guided_json", {"type": "object"}),
    ("guided_regex", "a+"),
    ("guided_choice", ["a"]),
    ("guided_grammar", "root ::= x"),
    ("reasoning", {"effort": "high"}),
    ("reasoning", {"max_tokens": 100}),
    ("reasoning", {"enabled": True}),
    ("reasoning", True),
    ("reasoning_effort", "low"),
    ("reasoning_effort", 1),
]
ASKS: list[tuple[str, Any]] = [
    ("verbosity", "high"),
    ("modalities", ["text", "audio"]),
    ("modalities", "audio"),
    ("audio", {"voice": "alloy", "format": "wav"}),
    ("web_search_options", {}),
    ("store", True),
    ("store", 1),
    ("prompt_embeds", "gASV"),
    ("inputs_embeds", [[0.1]]),
    ("chat_template", "{{ messages }}"),
    ("chat_template_kwargs", {"tokenize": True}),
    ("custom_logit_processor", "x"),
    ("logits_processors", ["x"]),
    ("bad_words", ["x"]),
    ("allowed_token_ids", [1]),
    ("use_beam_search", True),
    ("include_stop_str_in_output", True),
    ("skip_special_tokens", False),
    ("truncate_prompt_tokens", 5),
    ("prompt_logprobs", 0),
    ("suffix", "end"),
]
ASKS_NOTHING: list[tuple[str, Any]] = [
    ("tools", []),
    ("tool_choice", "none"),
    ("tool_choice", "auto"),
    ("functions", []),
    ("function_call", "auto"),
    ("response_format", {"type": "text"}),
    ("reasoning", {}),
    ("prediction", {"type": "content", "content": "x"}),
    ("verbosity", "medium"),
    ("modalities", ["text"]),
    ("store", False),
    ("chat_template_kwargs", {}),
    ("bad_words", []),
    ("use_beam_search", False),
    ("include_stop_str_in_output", False),
    ("skip_special_tokens", True),
    ("suffix", ""),
]


@pytest.mark.parametrize(("field", "value"), ASKS)
def test_what_cannot_be_honoured_is_refused_by_name(field: str, value: Any) -> None:
    """P2, P11, P15, P17, P19, S10: 400 `unsupported_parameter` on both endpoints."""
    for error in (refused_chat(**{field: value}), refused_completion(**{field: value})):
        assert isinstance(error, UnsupportedParameter)
        assert (error.status, error.param, error.code) == (400, field, "unsupported_parameter")
        assert error.message.startswith(f"{field} ")


def test_s10_the_backend_of_grammars_is_not_the_clients_choice() -> None:
    """S10: nor are its options."""
    for field in ("guided_decoding_backend", "guided_whitespace_pattern"):
        assert isinstance(refused_chat(**{field: "outlines"}), UnsupportedParameter)
        assert refused_chat(**{field: "outlines"}).param == field
        assert chat(**{field: None}) == chat()


@pytest.mark.parametrize(("field", "value"), CHAT_ONLY)
def test_what_only_chats_have_is_refused_for_completions(field: str, value: Any) -> None:
    """The answer would silently lack it; the message says where it is served."""
    error = refused_completion(**{field: value})
    assert isinstance(error, UnsupportedParameter)
    assert error.param == field
    assert "use chat completions" in error.message


@pytest.mark.parametrize(("field", "value"), ASKS_NOTHING)
def test_the_value_that_changes_nothing_is_accepted(field: str, value: Any) -> None:
    """Client libraries send defaults; the request is the same as without."""
    assert chat(**{field: value}) == chat()
    assert completion(**{field: value}) == completion()


@pytest.mark.parametrize("field", sorted({field for field, _ in ASKS + CHAT_ONLY}))
def test_null_asks_for_nothing(field: str) -> None:
    """Null is absent here, too."""
    assert chat(**{field: None}) == chat()
    assert completion(**{field: None}) == completion()


def test_the_first_field_of_the_request_is_named() -> None:
    """With several at fault the answer does not depend on chance."""
    assert refused_chat(suffix="x", store=True).param == "suffix"
    assert refused_chat(store=True, suffix="x").param == "store"
