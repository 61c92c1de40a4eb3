"""Small talk, who the model is, personas from a system turn, and polite refusals."""

from __future__ import annotations

import json

from provider_starter.recipe.conversation import Conversation, Message
from provider_starter.recipe.lexicon import WORDS
from provider_starter.recipe.phrasing import Draw, Phrases, phrases

WHO = "I am Starter, a small demo model built into provider-core."
ABILITIES = (
    "I am a small demo model. I can chat, add and multiply small numbers, count, spell, "
    "reverse and copy words, name capitals, extract JSON, remember what you tell me, tell short "
    "stories and call tools."
)
REFUSAL = "Sorry, I am only a small demo model and cannot help with that."
NO_TOOL = "Sorry, none of my tools can do that."

TALK = {
    answer: Phrases(entry["mood"], tuple(entry["train"]), tuple(entry["held"]))
    for answer, entry in json.loads((WORDS / "talk.json").read_text(encoding="utf-8")).items()
}

REFUSE = phrases("refuse")

# What a tool could do; without one the answer is no, and no markup.
REFUSE_ACTION = phrases("refuse_action")


def chat(draw: Draw) -> Conversation:
    """Small talk, with one fixed answer for each intent."""
    answer = draw.pick((*TALK, WHO, ABILITIES, "Hello! How can I help you?"))
    text = draw.phrase(TALK[answer])
    return Conversation(
        "chat", (Message("user", text), Message("assistant", answer)), phrasing=draw.core
    )


def refuse(draw: Draw, *, actions: bool = True) -> Conversation:
    """Ask for something far beyond a small model; `actions` includes what a tool could do."""
    topic = draw.pick(draw.lexicon.lists["topics_held" if draw.held else "topics"])
    if not draw.held and draw.chance(0.25):
        topic = draw.pick(
            (
                draw.thing(),
                f"the {draw.thing()}",
                f"{draw.made_up()} {draw.thing()}",
                draw.made_up(),
            )
        )
    forms = REFUSE_ACTION if actions and draw.chance(0.4) else REFUSE
    text = draw.phrase(
        forms,
        t=topic,
        m=draw.made_up(),
        n=draw.name(),
        c=draw.city(),
        k=draw.number(2, 500),
        j=draw.number(2, 50),
    )
    messages = (Message("user", text), Message("assistant", REFUSAL))
    return Conversation("refusal", messages, kind="refusal", phrasing=draw.core, item=topic)


_PERSONA_ASK = {k: phrases(f"persona_{k}") for k in ("who", "name", "job", "like", "live")}


def persona(draw: Draw) -> Conversation:
    """Answer as the character that the system turn describes."""
    name, city, thing = draw.name(), draw.city(), draw.thing()
    role = f"{draw.pick(draw.lexicon.lists['adjectives'])} {draw.pick(draw.lexicon.lists['roles'])}"
    if draw.chance(0.4):
        role = role.split(" ", 1)[1]
    role = ("an " if role[0] in "aeiou" else "a ") + role
    likes = thing + "s" if " " not in thing else thing
    template = draw.pick(draw.lexicon.lists["persona_system"])
    system = template.format(name=name, city=city, thing=likes, role=role)
    facts = {"who": f"I am {name}, {role}.", "name": f"My name is {name}.", "job": f"I am {role}."}
    if "{thing}" in template:
        facts["like"] = f"I like {likes}."
    if "{city}" in template:
        facts["live"] = f"I live in {city}."
    if draw.chance(0.3):
        system += draw.pick(
            (
                " Be polite.",
                " Keep answers short.",
                " You are friendly.",
                " Never be rude.",
                " Stay in character.",
                " Answer in one sentence.",
            )
        )
    asked = draw.rng.sample(list(facts), k=min(len(facts), draw.pick((1, 1, 1, 2))))
    if draw.held:
        asked = asked[:1]
    messages = [Message("system", system)]
    for ask in asked:
        messages += [
            Message("user", draw.phrase(_PERSONA_ASK[ask])),
            Message("assistant", facts[ask]),
        ]
    return Conversation("persona", tuple(messages), phrasing=draw.core, item=system)


def system_text(draw: Draw) -> str:
    """Return a system text that changes nothing, for any skill."""
    text = draw.expand(draw.pick(draw.lexicon.lists["system"]))
    return text.replace("{day}", draw.pick(draw.lexicon.lists["days"]))
