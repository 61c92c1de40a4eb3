"""Which skills are drawn, how often, and how they are joined into conversations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from provider_starter.recipe import skills_letters, skills_math, skills_text, skills_tools
from provider_starter.recipe.conversation import Conversation, Message
from provider_starter.recipe.lexicon import Lexicon
from provider_starter.recipe.phrasing import Draw
from provider_starter.recipe.skills_chat import chat, persona, refuse, system_text
from provider_starter.recipe.stories import story

PLAIN: dict[str, Callable[[Draw], Conversation]] = {
    "chat": chat,
    "refusal": refuse,
    "add": skills_math.add,
    "subtract": skills_math.subtract,
    "multiply": skills_math.multiply,
    "lists": skills_math.lists,
    "copy": skills_letters.copy,
    "uppercase": skills_letters.uppercase,
    "spell": skills_letters.spell,
    "reverse": skills_letters.reverse,
    "facts": skills_text.facts,
    "extraction": skills_text.extraction,
    "story": story,
}
# Shares of conversations; a tool conversation costs as many tokens as ten sums.
WEIGHTS: dict[str, float] = {
    "chat": 8, "refusal": 6, "add": 26, "subtract": 26, "multiply": 5, "lists": 18, "copy": 15,
    "uppercase": 16, "spell": 22, "reverse": 15, "facts": 11, "extraction": 14, "story": 1.5,
    "persona": 3, "memory": 5, "mixed": 3,
    "realistic tools": 18, "composed tools": 19, "two calls": 9, "none fits": 22,
    "answer after result": 4,
}  # fmt: skip
SKILLS = tuple(k for k in WEIGHTS if k != "mixed")


class Mixture:
    """An endless, reproducible stream of conversations.

    Args:
        seed: The same seed gives the same stream.
        lexicon: Where words come from.
        held: Whether to draw from the held-out side of the split.

    """

    def __init__(self, seed: int | str, lexicon: Lexicon, *, held: bool = False) -> None:
        self.draw = Draw(seed, lexicon, held=held)
        self.weights = dict(WEIGHTS)

    def one(self) -> Conversation:
        """Return the next conversation of the stream."""
        skill = self.draw.rng.choices(list(self.weights), list(self.weights.values()))[0]
        talk = self.of(skill)
        if talk.messages[0].role != "system" and not talk.tools and self.draw.chance(0.2):
            system = Message("system", system_text(self.draw))
            talk = replace(talk, messages=(system, *talk.messages))
        return talk

    def of(self, skill: str) -> Conversation:
        """Return a conversation of one skill."""
        if skill in PLAIN:
            return PLAIN[skill](self.draw)
        if skill == "mixed":
            return self._mixed()
        if skill == "persona":
            return persona(self.draw)
        if skill == "memory":
            return skills_text.memory(self.draw, self._between)
        if skill == "two calls":
            return skills_tools.two_calls(self.draw)
        if skill == "none fits":
            return skills_tools.none_fits(self.draw, lambda: self._plain(tools=True))
        if skill == "answer after result":
            return skills_tools.after_result(self.draw)
        return skills_tools.call(self.draw, composed=skill == "composed tools")

    def _plain(self, *, tools: bool = False) -> Conversation:
        """Return one exchange of any skill; with `tools`, one that no tool would serve."""
        names = [n for n in PLAIN if n != "story" or self.draw.chance(0.2)]
        name = self.draw.pick((*names, "refusal", "refusal", "chat", "chat"))
        if tools and name == "refusal":
            return refuse(self.draw, actions=False)
        return PLAIN[name](self.draw)

    def _between(self) -> tuple[Message, ...]:
        """Return an exchange that can stand between two others."""
        names = (
            "chat",
            "refusal",
            "add",
            "subtract",
            "facts",
            "lists",
            "copy",
            "spell",
            "multiply",
        )
        return PLAIN[self.draw.pick(names)](self.draw).messages

    def _mixed(self) -> Conversation:
        """Return several exchanges in one conversation, now and then very long ones."""
        count = self.draw.pick((2, 2, 3, 3, 4, 5, self.draw.number(8, 20)))
        if self.draw.chance(0.35):
            return self._mixed_tools(min(count, 5))
        parts = [self._plain() for _ in range(count)]
        messages = tuple(m for p in parts for m in p.messages)
        return Conversation("mixed", messages, phrasing=parts[-1].phrasing)

    def _mixed_tools(self, count: int) -> Conversation:
        """Return a conversation in which tool use and talk take turns."""
        first = skills_tools.after_result(self.draw)
        messages = list(first.messages)
        at = 1 if messages[0].role == "system" else 0
        for _ in range(count - 1):
            talk = self._plain(tools=True)
            if talk.skill in {"add", "subtract", "multiply", "refusal", "copy"}:
                continue  # one of the tools might serve
            if self.draw.chance(0.5):
                messages.extend(talk.messages)
            else:
                messages[at:at] = talk.messages
        return Conversation("mixed", tuple(messages), first.tools, phrasing=self.draw.core)
