"""Telling what a model thinks from what it says: `<think>...</think>` and its relatives.

Reasoning stands at the beginning of a reply. Either the prompt has opened it already, or the reply
does so with its first visible characters; the tag anywhere else is plain content. White space
around the tags belongs to neither side.
"""

from dataclasses import dataclass

from provider_core.text.incremental import Markers, Parse, Source, run


@dataclass(frozen=True, slots=True)
class ReasoningSyntax:
    """The tags around a family's reasoning; as text or as control tokens."""

    open: str
    close: str


THINK = ReasoningSyntax("<think>", "</think>")
REASONING_FAMILIES = {
    "think": THINK,
    "gpt_oss": ReasoningSyntax("<|channel|>analysis<|message|>", "<|end|>"),
    "gemma4": ReasoningSyntax("<|channel>thought", "<channel|>"),
    "mistral": ReasoningSyntax("[THINK]", "[/THINK]"),
    "seed": ReasoningSyntax("<seed:think>", "</seed:think>"),
    "reasoning": ReasoningSyntax("<reasoning>", "</reasoning>"),
    "thinking": ReasoningSyntax("<thinking>", "</thinking>"),
}


@dataclass(frozen=True, slots=True)
class ReasoningText:
    """A piece of reasoning."""

    text: str


class ReasoningStream:
    """Splits one reply.

    Args:
        syntax: The tags.
        is_open: The prompt ends inside the reasoning.

    Attributes:
        is_reasoning: What comes next still belongs to the reasoning, its closing tag included.
    """

    def __init__(self, syntax: ReasoningSyntax, *, is_open: bool) -> None:
        self.is_reasoning = is_open
        self._pieces: list[str | ReasoningText] = []
        self._source = Source()
        self._space = ""  # at the end of the reasoning so far
        self._is_done = False
        self._parse = self._read(syntax)
        run(self._parse)

    @property
    def num_held(self) -> int:
        """Characters that are not decided yet."""
        return self._source.num_held + len(self._space)

    @property
    def is_done(self) -> bool:
        """All that follows is content, and nothing is held."""
        return self._is_done

    def feed(self, text: str) -> list[str | ReasoningText]:
        """Take the next text in; a plain string is content."""
        self._source.add(text)
        run(self._parse)
        return self._drain()

    def flush(self) -> list[str | ReasoningText]:
        """Return what is left; no more text will come."""
        self._source.end()
        run(self._parse)
        text = self._source.end_attempt() + self._source.rest()
        if text and self.is_reasoning:
            self._think(text)
        elif text:
            self._pieces.append(text)
        self._space = ""
        return self._drain()

    def _read(self, syntax: ReasoningSyntax) -> Parse[None]:
        source = self._source
        source.begin_attempt("")
        yield from source.peek_solid()
        is_opened = yield from source.skip(syntax.open)
        if is_opened or self.is_reasoning:
            source.end_attempt()
            self.is_reasoning = True
            yield from source.peek_solid()
            yield from source.until(Markers([syntax.close]), self._think)
            self.is_reasoning = False
            self._space = ""
            yield from source.peek_solid()
        self._pieces.append(source.end_attempt() + source.rest())
        self._is_done = True

    def _think(self, text: str) -> None:
        text = self._space + text
        solid = text.rstrip()
        self._space = text[len(solid) :]
        if solid:
            self._pieces.append(ReasoningText(solid))

    def _drain(self) -> list[str | ReasoningText]:
        pieces, self._pieces = self._pieces, []
        return pieces
