"""What the generator produces, and the one text form that it has."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

Role = Literal["system", "user", "assistant", "tool"]
Kind = Literal["exact", "call", "refusal", "story", "members", "json"]
# A JSON value: its shape is the business of whoever reads it.
Json = Any

END_OF_TEXT = "<|endoftext|>"
TURN_START = "<|im_start|>"
TURN_END = "<|im_end|>"
SPECIAL_TOKENS = (
    END_OF_TEXT,
    TURN_START,
    TURN_END,
    "<tool_call>",
    "</tool_call>",
    "<tools>",
    "</tools>",
    "<tool_response>",
    "</tool_response>",
)


@dataclass(frozen=True, slots=True)
class Call:
    """One tool call: the name and its arguments."""

    name: str
    arguments: dict[str, Json]


@dataclass(frozen=True, slots=True)
class Message:
    """One turn; `letters` asks for one token per character when it is learned."""

    role: Role
    content: str
    calls: tuple[Call, ...] = ()
    letters: bool = False

    def as_dict(self) -> dict[str, Json]:
        """Return the turn in the form that chat templates take."""
        turn: dict[str, Json] = {"role": self.role, "content": self.content}
        if self.calls:
            turn["tool_calls"] = [
                {"type": "function", "function": {"name": c.name, "arguments": c.arguments}}
                for c in self.calls
            ]
        return turn


@dataclass(frozen=True, slots=True)
class Conversation:
    """A whole conversation that ends in the assistant turn to be learned or judged."""

    skill: str
    messages: tuple[Message, ...]
    tools: tuple[dict[str, Json], ...] = ()
    kind: Kind = "exact"
    accept: tuple[str, ...] = ()  # further answers that count as right, or members of a list
    count: int = 0  # members asked for, where kind is "members"
    phrasing: str = ""  # the core phrasing of the last request, to check the split
    item: str = ""  # what was asked about, to check the split


@dataclass(frozen=True, slots=True)
class Segment:
    """A piece of the text; `learned` pieces carry loss."""

    text: str
    learned: bool = False
    letters: bool = False


@dataclass(slots=True)
class _Plain:
    """Text without loss, gathered until something learned follows."""

    parts: list[str] = field(default_factory=list)

    def take(self) -> Iterator[Segment]:
        """Yield what was gathered, if anything, and start afresh."""
        if self.parts:
            yield Segment("".join(self.parts))
            self.parts.clear()


def call_text(call: Call) -> str:
    """Return the markup of one call."""
    body = json.dumps({"name": call.name, "arguments": call.arguments}, ensure_ascii=False)
    return f"<tool_call>\n{body}\n</tool_call>"


def answer_text(message: Message) -> str:
    """Return what an assistant turn says, markup included."""
    return "\n".join(
        [*([message.content] if message.content else []), *map(call_text, message.calls)]
    )


def segments(
    messages: tuple[Message, ...],
    tools: tuple[dict[str, Json], ...] = (),
    *,
    open_answer: bool = False,
) -> list[Segment]:
    """Return the conversation as text pieces, in the form of `chat_template.jinja`.

    Args:
        messages: The turns; a system turn, if any, comes first.
        tools: Function declarations, with or without their `function` wrapper.
        open_answer: Whether to end with the start of an assistant turn.

    """
    out: list[Segment] = []
    plain = _Plain()
    rest = list(messages)
    system = rest.pop(0).content if rest and rest[0].role == "system" else ""
    if tools:
        lines = [json.dumps(t.get("function", t), ensure_ascii=False) for t in tools]
        block = "# Tools\n<tools>\n" + "\n".join(lines) + "\n</tools>"
        system = f"{system}\n\n{block}" if system else block
    if system:
        plain.parts.append(f"{TURN_START}system\n{system}{TURN_END}\n")
    for at, turn in enumerate(rest):
        if turn.role == "assistant":
            plain.parts.append(f"{TURN_START}assistant\n")
            out.extend(plain.take())
            out.append(Segment(answer_text(turn), learned=True, letters=turn.letters))
            out.append(Segment(TURN_END, learned=True))
            plain.parts.append("\n")
        elif turn.role == "tool":
            first = at == 0 or rest[at - 1].role != "tool"
            last = at + 1 == len(rest) or rest[at + 1].role != "tool"
            plain.parts.append(f"{TURN_START}user\n" if first else "\n")
            plain.parts.append(f"<tool_response>\n{turn.content}\n</tool_response>")
            plain.parts.append(f"{TURN_END}\n" if last else "")
        else:
            plain.parts.append(f"{TURN_START}{turn.role}\n{turn.content}{TURN_END}\n")
    if open_answer:
        plain.parts.append(f"{TURN_START}assistant\n")
    out.extend(plain.take())
    return out


def render(
    messages: tuple[Message, ...],
    tools: tuple[dict[str, Json], ...] = (),
    *,
    open_answer: bool = False,
) -> str:
    """Return the conversation as one text."""
    return "".join(s.text for s in segments(messages, tools, open_answer=open_answer))
