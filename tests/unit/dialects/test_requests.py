"""Requests: every rule of the contract for fields, ranges, nulls and refusals."""

from typing import Any

import pytest

from provider_core.dialects.openai import ParsedChat, ParsedCompletion, parse_chat, parse_completion
from provider_core.errors import InvalidRequest
from provider_core.settings import LimitSettings

LIMITS = LimitSettings()
MESSAGES = [{"role": "user", "content": "hi"}]


def chat(**fields: Any) -> ParsedChat:
    return parse_chat({"model": "m", "messages": MESSAGES, **fields}, LIMITS)


def completion(**fields: Any) -> ParsedCompletion:
    return parse_completion({"model": "m", "prompt": "hi", **fields}, LIMITS)


def refused(**fields: Any) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as raised:
        chat(**fields)
    return raised.value


def test_a_plain_chat_gets_the_documented_defaults() -> None:
    """Absent fields mean OpenAI's defaults; a chat has no hidden token limit (BUG-15)."""
    parsed = chat()
    assert parsed.sampling.max_tokens is None
    assert parsed.sampling.temperature == 1
    assert (parsed.n, parsed.best_of, parsed.stream, parsed.stop) == (1, 1, False, ())


def test_p1_n_is_limited() -> None:
    """P1: n from 1 to the configured limit, never silently 1 (BUG-19)."""
    assert chat(n=8).n == 8
    for n in (0, -1, 9, 10**9):
        assert refused(n=n).param == "n"
