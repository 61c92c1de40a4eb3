"""Context compression, or middle-out: a conversation that is too long loses whole turns amid it.

A turn is a message of the user and all that follows up to the next one, so that calls of tools keep
their results and roles keep alternating. What comes before the first turn, and the last turn, stay.
"""

from collections.abc import Mapping, Sequence
from typing import Any

Message = dict[str, Any]  # OpenAI's message objects


def count_turns(messages: Sequence[Mapping[str, Any]]) -> int:
    """How many turns a conversation has."""
    return sum(message["role"] == "user" for message in messages)


def without_middle(messages: Sequence[Message], num_turns: int) -> list[Message]:
    """Keep so many turns, half of them from each end, the last ones first.

    Args:
        messages: A conversation.
        num_turns: At least one; as many as it has or more change nothing.
    """
    starts = [place for place, message in enumerate(messages) if message["role"] == "user"]
    if num_turns >= len(starts):
        return list(messages)
    num_first = num_turns // 2
    end_of_first = starts[num_first]
    start_of_last = starts[len(starts) - (num_turns - num_first)]
    return [*messages[:end_of_first], *messages[start_of_last:]]


def reply_room(max_tokens: int | None, max_model_len: int) -> int:
    """Tokens that a compressed prompt leaves for the reply.

    As many as are asked for, up to half of what there is; an eighth of it where nobody says.
    """
    return min(max_tokens or max_model_len // 8, max_model_len // 2)
