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
ASKS: list[tuple[str, Any]] = [
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
    ("verbosity", "high"),
    ("modalities", ["text", "audio"]),
    ("modalities", "audio"),
    ("audio", {"voice": "alloy", "format": "wav"}),
    ("web_search_options", {}),
    ("prediction", {"type": "content", "content": "x"}),
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
    ("reasoning", {"effort": "none", "exclude": True}),
    ("reasoning", {"enabled": False, "max_tokens": None}),
    ("reasoning_effort", "none"),
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
    """P2, P11, P15, P17, P19: 400 `unsupported_parameter` on both endpoints."""
    for error in (refused_chat(**{field: value}), refused_completion(**{field: value})):
        assert isinstance(error, UnsupportedParameter)
        assert (error.status, error.param, error.code) == (400, field, "unsupported_parameter")
        assert error.message.startswith(f"{field} ")


@pytest.mark.parametrize(("field", "value"), ASKS_NOTHING)
def test_the_value_that_changes_nothing_is_accepted(field: str, value: Any) -> None:
    """Client libraries send defaults; the request is the same as without."""
    assert chat(**{field: value}) == chat()
    assert completion(**{field: value}) == completion()


@pytest.mark.parametrize("field", sorted({field for field, _ in ASKS}))
def test_null_asks_for_nothing(field: str) -> None:
    """Null is absent here, too."""
    assert chat(**{field: None}) == chat()


def test_the_first_field_of_the_request_is_named() -> None:
    """With several at fault the answer does not depend on chance."""
    assert refused_chat(tools=[TOOL], store=True).param == "tools"
    assert refused_chat(store=True, tools=[TOOL]).param == "store"


def test_tools_say_that_a_later_version_is_needed() -> None:
    """Who needs tools learns that waiting helps."""
    assert "later version" in refused_chat(tools=[TOOL]).message
    assert "later version" in refused_chat(response_format={"type": "json_object"}).message
