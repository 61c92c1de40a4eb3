"""Turns of dialects whose messages are made of blocks."""

from provider_core.dialects.chat_request import ImageSource
from provider_core.dialects.turns import Turns


def test_pieces_of_one_role_are_one_message() -> None:
    """Texts joined by the role's separator, thoughts and calls beside them."""
    turns = Turns({"assistant": ""})
    turns.say("user", "a")
    turns.say("user", "b")
    turns.think("h")
    turns.think("m")
    turns.say("assistant", "c")
    turns.say("assistant", "d")
    turns.call("1", "f", {"x": 1})
    turns.answer("1", "r", "f")
    turns.answer("2", "s", None)

    assert turns.messages() == [
        {"role": "user", "content": "a\nb"},
        {
            "role": "assistant",
            "content": "cd",
            "reasoning_content": "hm",
            "tool_calls": [
                {"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"x":1}'}}
            ],
        },
        {"role": "tool", "content": "r", "tool_call_id": "1", "name": "f"},
        {"role": "tool", "content": "s", "tool_call_id": "2"},
    ]


def test_a_turn_with_images_stays_in_parts() -> None:
    """One without does not."""
    turns = Turns()
    turns.say("user", "a")
    turns.show(ImageSource("x", "p"))
    turns.open("assistant")
    turns.say("user", "b")

    assert turns.messages() == [
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "image"}]},
        {"role": "assistant", "content": None},
        {"role": "user", "content": "b"},
    ]
    assert turns.images == [ImageSource("x", "p")]
