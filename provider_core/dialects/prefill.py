"""A conversation that ends with the assistant: its last message is continued, not answered."""

from typing import Any


def is_continued(messages: list[dict[str, Any]]) -> bool:
    """Whether the last of OpenAI's message objects is to be continued.

    One of the assistant that says nothing is taken away, unless it is all there is: to continue
    nothing is to answer.
    """
    last = messages[-1]
    if last["role"] != "assistant" or "tool_calls" in last:
        return False
    if last["content"]:
        return True
    if len(messages) > 1:
        messages.pop()
    return False
