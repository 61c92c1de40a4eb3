"""What a conversation loses when it is too long: whole turns, from the middle."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provider_core.dialects.openrouter.compression import count_turns, reply_room, without_middle

ROLES = {"s": "system", "u": "user", "a": "assistant", "t": "tool"}


def talk(roles: str) -> list[dict[str, Any]]:
    """A conversation by the first letters of its roles; each message says its place."""
    return [{"role": ROLES[letter], "content": place} for place, letter in enumerate(roles)]


@pytest.mark.parametrize(
    ("roles", "num_turns", "kept"),
    [
        ("suauauau", 4, [0, 1, 2, 3, 4, 5, 6, 7]),
        ("suauauau", 9, [0, 1, 2, 3, 4, 5, 6, 7]),
        ("suauauau", 3, [0, 1, 2, 5, 6, 7]),
        ("suauauau", 2, [0, 1, 2, 7]),
        ("suauauau", 1, [0, 7]),
        ("uataua", 1, [4, 5]),
        ("saua", 1, [0, 1, 2, 3]),
        ("sa", 1, [0, 1]),
    ],
)
def test_the_middle_goes_first(roles: str, num_turns: int, kept: list[int]) -> None:
    """The beginning and the end stay, the end longest."""
    assert [message["content"] for message in without_middle(talk(roles), num_turns)] == kept


@given(st.text("suat", max_size=30), st.integers(1, 10))
def test_what_is_left_is_a_conversation(roles: str, num_turns: int) -> None:
    """In order, with whole turns, the last of them always among them."""
    messages = talk(roles)
    kept = without_middle(messages, num_turns)
    places = [message["content"] for message in kept]

    assert places == sorted(places)
    assert kept[-1:] == messages[-1:]
    assert count_turns(kept) == min(num_turns, count_turns(messages))
    for place in set(range(len(messages))) - set(places):  # its turn is gone with it
        turn = roles[: place + 1].rindex("u")
        assert turn not in places


@pytest.mark.parametrize(("max_tokens", "room"), [(None, 128), (10, 10), (512, 512), (10_000, 512)])
def test_a_reply_has_room(max_tokens: int | None, room: int) -> None:
    """Half of the context at most."""
    assert reply_room(max_tokens, 1024) == room
