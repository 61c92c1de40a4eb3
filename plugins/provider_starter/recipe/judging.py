"""Decide whether an answer is right."""

from __future__ import annotations

import json
import re

from provider_starter.recipe.conversation import Call, Conversation, answer_text

_CALL = re.compile(r"<tool_call>\n(.*?)\n</tool_call>", re.DOTALL)
_STORY_TOKENS = range(100, 301)


def calls_in(text: str) -> list[Call] | None:
    """Return the calls of an answer that is nothing but well-formed calls, else none."""
    found = _CALL.findall(text)
    if not found or "\n".join(f"<tool_call>\n{f}\n</tool_call>" for f in found) != text:
        return None
    calls = []
    for body in found:
        try:
            parsed = json.loads(body)
        except json.JSONDecodeError:
            return None
        if not isinstance(parsed, dict) or set(parsed) != {"name", "arguments"}:
            return None
        calls.append(Call(parsed["name"], parsed["arguments"]))
    return calls


def is_json(text: str) -> bool:
    """Return whether the whole answer is one JSON value."""
    try:
        json.loads(text)
    except json.JSONDecodeError:
        return False
    return True


def is_right(talk: Conversation, text: str, tokens: int, *, ended: bool) -> bool:
    """Return whether an answer to the conversation's last request is right.

    Args:
        talk: The conversation, with the expected answer as its last turn.
        text: The answer, tool markup included, without the end mark.
        tokens: How many tokens the answer has.
        ended: Whether the model ended the answer itself.

    """
    expected = talk.messages[-1]
    if not ended:
        return False
    if talk.kind == "call":
        return calls_in(text) == list(expected.calls)
    if talk.kind == "refusal":
        return text.startswith("Sorry, ") and "<tool" not in text
    if talk.kind == "story":
        return tokens in _STORY_TOKENS and "<" not in text
    if talk.kind == "members":
        said = text.removesuffix(".").split(", ")
        return len(said) == talk.count == len(set(said)) and set(said) <= set(talk.accept)
    if talk.kind == "json":
        return is_json(text) and json.loads(text) == json.loads(expected.content)
    return text == answer_text(expected) or text in talk.accept
