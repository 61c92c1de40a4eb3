"""Shortest requests that are valid, to which a test adds the field it is about."""

from typing import Any

import pytest

from provider_core.dialects.openai import ParsedChat, ParsedCompletion, parse_chat, parse_completion
from provider_core.errors import InvalidRequest
from provider_core.settings import LimitSettings

LIMITS = LimitSettings()
MESSAGES = [{"role": "user", "content": "hi"}]


def chat(**fields: Any) -> ParsedChat:
    """Parse a chat request with these fields."""
    return parse_chat({"model": "m", "messages": MESSAGES, **fields}, LIMITS)


def completion(**fields: Any) -> ParsedCompletion:
    """Parse a completion request with these fields."""
    return parse_completion({"model": "m", "prompt": "hi", **fields}, LIMITS)


def refused_chat(**fields: Any) -> InvalidRequest:
    """The refusal of a chat request with these fields."""
    with pytest.raises(InvalidRequest) as raised:
        chat(**fields)
    return raised.value


def refused_completion(**fields: Any) -> InvalidRequest:
    """The refusal of a completion request with these fields."""
    with pytest.raises(InvalidRequest) as raised:
        completion(**fields)
    return raised.value
