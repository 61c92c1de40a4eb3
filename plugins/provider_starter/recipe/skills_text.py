"""Facts, JSON extraction, memory over turns, and stories."""

from __future__ import annotations

import json
from collections.abc import Callable

from provider_starter.recipe.conversation import Conversation, Json, Message
from provider_starter.recipe.phrasing import Draw, Phrases, phrases

CAPITAL = phrases("capital")
COLOUR = phrases("colour")
SOUND = phrases("sound")
BABY = phrases("baby")
OPPOSITE = phrases("opposite")
THING = phrases("thing")


def _bare(text: str) -> str:
    return text[:1].upper() + text[1:]


def facts(draw: Draw) -> Conversation:
    """Ask for a fact from the word lists; only phrasings are held out."""
    tables = draw.lexicon.lists
    choices: tuple[tuple[str, Phrases, Callable[[str, str], str]], ...] = (
        ("capitals", CAPITAL, lambda x, y: f"The capital of {x} is {y}."),
        ("capitals", CAPITAL, lambda x, y: f"The capital of {x} is {y}."),
        ("colours", COLOUR, lambda x, y: f"{_bare(x)} is {y}."),
        ("sounds", SOUND, lambda x, y: f"A {x} says {y}."),
        ("babies", BABY, lambda x, y: f"A baby {x} is called a {y}."),
        ("opposites", OPPOSITE, lambda x, y: f"The opposite of {x} is {y}."),
        ("things", THING, lambda _, y: y),
    )
    table, phrases, say = draw.pick(choices)
    key = draw.pick(tuple(tables[table]))
    value = tables[table][key]
    answer = say(key, value)
    answer = answer.replace("A owl", "An owl").replace("called a a", "called an a")
    if table == "opposites" and draw.chance(0.5):
        key, value = value, key
        answer = say(key, value)
        forward = tables[table].get(key)
        answer = say(key, forward) if forward else answer
    shown = key.lower() if table == "things" or draw.chance(0.08) else key
    text = draw.phrase(phrases, x=shown)
    if table == "things" and draw.chance(0.85):
        text = _bare(text)
    return Conversation(
        "facts", (Message("user", text), Message("assistant", answer)), phrasing=draw.core, item=key
    )


JSON_ASK = phrases("json_ask")


def _json_fields(draw: Draw) -> list[tuple[str, Json, str]]:
    """Return key, value and how the value is said, for a few fields about one subject."""
    name = draw.name()
    age, city, job = draw.number(3, 99), draw.city(), draw.pick(draw.lexicon.lists["jobs"])
    food, thing = draw.pick(draw.lexicon.lists["foods"]), draw.thing()
    key, value = draw.made_up(), draw.word()
    pool: list[tuple[str, Json, str]] = [
        (
            "age",
            age,
            draw.pick((f"is {age} years old", f"is {age}", f"is aged {age}", f"turned {age}")),
        ),
        ("city", city, draw.pick((f"lives in {city}", f"comes from {city}", f"is from {city}"))),
        ("job", job, draw.pick((f"works as a {job}", f"is a {job}"))),
        ("food", food, draw.pick((f"likes to eat {food}", f"eats {food}", f"likes {food}"))),
        ("pet", thing, draw.pick((f"has a pet called {thing}", f"has a {thing} as a pet"))),
        (key, value, draw.pick((f"has {key} {value}", f"has the {key} {value}"))),
    ]
    return [("name", name, name), *draw.rng.sample(pool, draw.pick((1, 2, 2, 3)))]


def _order_fields(draw: Draw) -> list[tuple[str, Json, str]]:
    count, item, price = draw.number(1, 60), draw.thing(), draw.number(1, 300)
    day = draw.pick(("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"))
    fields: list[tuple[str, Json, str]] = [
        ("item", item, f"the item is {item}"),
        ("quantity", count, f"the quantity is {count}"),
        ("price", price, f"the price is {price}"),
    ]
    more: list[tuple[str, Json, str]] = [
        ("day", day, f"the day is {day}"),
        (draw.made_up(), draw.word(), ""),
    ]
    more[1] = (more[1][0], more[1][1], f"the {more[1][0]} is {more[1][1]}")
    fields = draw.rng.sample(fields + more, draw.number(2, 4))
    return [fields[0], *fields[1:]]


def _sentence(draw: Draw, fields: list[tuple[str, Json, str]], *, person: bool) -> str:
    if draw.chance(0.15):
        return ", ".join(f"{k}: {v}" for k, v, _ in fields) + draw.pick((".", ""))
    said = [f[2] for f in fields]
    if person:
        body = f"{said[0]} {said[1]}"
        if len(said) > 2:
            joiner = draw.pick((" and ", ", ", ". "))
            for at, part in enumerate(said[2:]):
                last = at == len(said) - 3
                join = " and " if last and joiner == ", " else joiner
                body += (
                    (". " + draw.pick(("He ", "She ", fields[0][1] + " "))) + part
                    if join == ". "
                    else join + part
                )
        return body + "."
    return _bare(draw.pick((", ", " and ", ". ")).join(said)) + "."


def extraction(draw: Draw) -> Conversation:
    """Ask for some facts of a sentence as JSON."""
    person = draw.chance(0.7)
    fields = _json_fields(draw) if person else _order_fields(draw)
    sentence = _sentence(draw, fields, person=person)
    keys = [f[0] for f in fields]
    if draw.chance(0.25):
        keys = draw.rng.sample(keys, draw.number(1, len(keys)))
    elif draw.chance(0.25):
        draw.rng.shuffle(keys)
    values = {k: v for k, v, _ in fields}
    spoken = (
        ", ".join(keys)
        if draw.chance(0.3) or len(keys) < 2
        else ", ".join(keys[:-1]) + " and " + keys[-1]
    )
    if draw.chance(0.2):
        spoken = "the " + spoken
    ask = draw.phrase(JSON_ASK, keys="\0", text=sentence)
    if "\0" not in ask:
        keys = [f[0] for f in fields]
    ask = ask.replace("\0", spoken)
    for plain in ("json", "Json"):
        if draw.chance(0.85):
            ask = ask.replace(plain, "JSON")
    answer = json.dumps({k: values[k] for k in keys}, ensure_ascii=False)
    return Conversation(
        "extraction",
        (Message("user", ask), Message("assistant", answer)),
        kind="json",
        phrasing=draw.core,
        item=sentence,
    )


_REPLIES = {  # what is said when told, and when asked
    "name": ("Nice to meet you, {x}!", "Your name is {x}."),
    "city": ("{x} sounds nice!", "You live in {x}."),
    "pet": ("{x} is a lovely name for a pet!", "Your pet is called {x}."),
    "favorite": ("Good to know! I will remember {x}.", "Your favorite {k} is {x}."),
    "secret": ("Okay, I will remember that the {k} is {x}.", "The {k} is {x}."),
}
_TELL = {kind: phrases(f"tell_{kind}") for kind in _REPLIES}
_RECALL = {kind: phrases(f"recall_{kind}") for kind in _REPLIES}


def memory(draw: Draw, between: Callable[[], tuple[Message, ...]]) -> Conversation:
    """Tell one to three things about the user, and ask for one later.

    Args:
        draw: The source of chance.
        between: Makes the turns that stand between telling and asking.

    """
    messages: list[Message] = []
    asked: list[tuple[str, dict[str, str]]] = []
    for kind in draw.rng.sample(list(_REPLIES), draw.pick((1, 1, 1, 2, 2, 3))):
        slots = {"x": draw.name()}
        if kind == "city":
            slots["x"] = draw.city()
        elif kind == "favorite":
            key = draw.pick(("color", "food", "animal", "number", "fruit", "city", "drink", "word"))
            options = {
                "color": ["red", "blue", "green", "pink", "black"],
                "food": draw.lexicon.lists["foods"],
                "animal": draw.lexicon.lists["lists"]["animals"],
            }.get(key)
            value = (
                str(draw.number(1, 99))
                if key == "number"
                else draw.pick(options)
                if options and draw.chance(0.5)
                else draw.word()
            )
            slots = {"k": key, "x": value}
        elif kind == "secret":
            key = draw.pick(
                (
                    "password",
                    "code",
                    "secret word",
                    "secret number",
                    "word",
                    "key",
                    "pin",
                    draw.made_up(),
                )
            )
            numeric = key in {"secret number", "pin"} or draw.chance(0.2)
            slots = {"k": key, "x": str(draw.number(1, 9999)) if numeric else draw.word()}
        messages += [Message("user", draw.phrase(_TELL[kind], **slots))]
        messages += [Message("assistant", _REPLIES[kind][0].format(**slots))]
        asked.append((kind, slots))
        for _ in range(draw.pick((0, 0, 1, 1, 2, 3))):
            messages += between()
    picked = draw.rng.sample(asked, draw.number(1, len(asked)) if not draw.held else 1)
    for kind, slots in picked:
        messages += [Message("user", draw.phrase(_RECALL[kind], **slots))]
        messages += [Message("assistant", _REPLIES[kind][1].format(**slots))]
    return Conversation("memory", tuple(messages), phrasing=draw.core, item=str(asked))
