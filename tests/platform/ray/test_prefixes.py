"""What the ingress reads of a request to place it."""

import json
from typing import Any

import pytest

from provider_ray.prefixes import BLOCK_BYTES, prefix_keys

PATH = "/v1/chat/completions"
HEADERS = {"authorization": "Bearer one"}
LONG = "A system prompt of many words. " * 40


def keys(
    user: str, headers: dict[str, str] = HEADERS, path: str = PATH, **fields: Any
) -> tuple[bytes, ...]:
    """Of a chat that begins with the same system prompt."""
    messages = [{"role": "system", "content": LONG}, {"role": "user", "content": user}]
    body = {"model": "m", "messages": messages, **fields}
    return prefix_keys(path, headers, json.dumps(body).encode())


def num_shared(one: tuple[bytes, ...], other: tuple[bytes, ...]) -> int:
    """Beginnings that two prompts have in common."""
    return sum(a == b for a, b in zip(one, other, strict=False))


def test_prompts_share_what_they_have_in_common() -> None:
    """And whatever else the requests say changes nothing."""
    one, other = keys("Hello! " * 100), keys("Bye! " * 100, temperature=0.5, stream=True)

    assert num_shared(one, other) in {len(LONG) // BLOCK_BYTES, len(LONG) // BLOCK_BYTES + 1}
    assert len(one) > num_shared(one, other)
    assert len(set(one)) == len(one)


@pytest.mark.parametrize(
    "other",
    [
        {"headers": {"authorization": "Bearer two"}},
        {"headers": {"x-api-key": "one"}},
        {"path": f"{PATH}?key=two"},
        {"model": "another"},
        {"cache_salt": "s"},
        {"tools": [{"type": "function", "function": {"name": "f"}}]},
    ],
)
def test_what_servers_do_not_share_is_not_held_together(other: dict[str, Any]) -> None:
    """Keys, models and salts are apart; tools stand before all messages."""
    assert num_shared(keys("Hello!"), keys("Hello!", **other)) == 0


@pytest.mark.parametrize("name", ["messages", "contents", "prompt", "input", "system"])
def test_every_dialect_s_prompt_is_read(name: str) -> None:
    """By the name that it has there."""
    assert len(prefix_keys(PATH, HEADERS, json.dumps({name: LONG}).encode())) > 2


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"3",
        b"{}",
        b'{"prompt": "short"}',
        b'{"prompt":' + b"[" * 1000 + b"]" * 1000 + b"}",
    ],
)
def test_a_body_without_a_long_prompt_has_no_keys(body: bytes) -> None:
    """What is wrong with it is the server's to say."""
    assert prefix_keys(PATH, HEADERS, body) == ()


def test_a_very_long_prompt_has_few() -> None:
    """The work is bounded."""
    assert len(prefix_keys(PATH, HEADERS, json.dumps({"prompt": LONG * 1000}).encode())) == 64
