"""`reasoning` and its aliases: one set of options, or a contradiction that is named."""

from typing import Any

import pytest

from provider_core.dialects.chat_request import ReasoningOptions
from tests.unit.dialects.request_bodies import chat, refused_chat


@pytest.mark.parametrize(
    ("fields", "options"),
    [
        ({}, {}),
        ({"reasoning": {}}, {}),
        ({"reasoning": {"effort": None, "summary": "auto"}}, {}),
        ({"reasoning": {"effort": "high"}}, {"enabled": True, "effort": "high"}),
        ({"reasoning": {"max_tokens": 9}}, {"enabled": True, "max_tokens": 9}),
        ({"reasoning": {"enabled": True}}, {"enabled": True}),
        ({"reasoning": {"enabled": False}}, {"enabled": False}),
        ({"reasoning": {"effort": "none"}}, {"enabled": False, "effort": "none"}),
        ({"reasoning": {"exclude": True}}, {"exclude": True}),
        ({"include_reasoning": False}, {"exclude": True}),
        ({"include_reasoning": True}, {}),
        (
            {"reasoning_effort": "low"},
            {"enabled": True, "effort": "low", "param": "reasoning_effort"},
        ),
        (
            {"reasoning_effort": "none"},
            {"enabled": False, "effort": "none", "param": "reasoning_effort"},
        ),
        (
            {"chat_template_kwargs": {"enable_thinking": False}},
            {"enabled": False, "param": "chat_template_kwargs"},
        ),
        (
            {"chat_template_kwargs": {"thinking": True}, "reasoning": {"effort": "low"}},
            {"enabled": True, "effort": "low"},
        ),
        (
            {"reasoning_effort": "low", "reasoning": {"effort": "low", "exclude": True}},
            {"enabled": True, "effort": "low", "exclude": True},
        ),
    ],
)
def test_every_name_ends_in_the_same_options(
    fields: dict[str, Any], options: dict[str, Any]
) -> None:
    """OpenRouter's object, OpenAI's word, and the old switch."""
    assert chat(**fields).reasoning == ReasoningOptions(**options)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"reasoning": True}, "reasoning"),
        ({"reasoning": {"effort": "huge"}}, "reasoning.effort"),
        ({"reasoning": {"max_tokens": 0}}, "reasoning.max_tokens"),
        ({"reasoning": {"max_tokens": 1.5}}, "reasoning.max_tokens"),
        ({"reasoning": {"exclude": 1}}, "reasoning.exclude"),
        ({"reasoning": {"effort": "low", "max_tokens": 5}}, "reasoning.max_tokens"),
        ({"reasoning_effort": "low", "reasoning": {"max_tokens": 5}}, "reasoning.max_tokens"),
        ({"reasoning": {"effort": "low", "enabled": False}}, "reasoning.enabled"),
        ({"reasoning": {"max_tokens": 5, "enabled": False}}, "reasoning.enabled"),
        ({"reasoning": {"effort": "none", "enabled": True}}, "reasoning.enabled"),
        ({"reasoning_effort": "low", "reasoning": {"effort": "high"}}, "reasoning_effort"),
        ({"reasoning_effort": 1}, "reasoning_effort"),
        ({"reasoning_effort": "huge"}, "reasoning_effort"),
        ({"include_reasoning": True, "reasoning": {"exclude": True}}, "include_reasoning"),
        (
            {"chat_template_kwargs": {"thinking": True}, "reasoning": {"enabled": False}},
            "chat_template_kwargs",
        ),
        (
            {"chat_template_kwargs": {"thinking": False}, "reasoning_effort": "low"},
            "chat_template_kwargs",
        ),
        ({"chat_template_kwargs": {"thinking": 1}}, "chat_template_kwargs"),
        ({"chat_template_kwargs": {"thinking": True, "x": 1}}, "chat_template_kwargs"),
        ({"include_reasoning": False, "reasoning": {"exclude": False}}, "include_reasoning"),
    ],
)
def test_contradictions_are_refused(fields: dict[str, Any], param: str) -> None:
    """Never one of two answers by chance."""
    error = refused_chat(**fields)
    assert (error.status, error.param) == (400, param)
