"""Sums, lists and counting."""

from __future__ import annotations

from provider_starter.recipe.conversation import Conversation, Message
from provider_starter.recipe.phrasing import Draw, is_held, phrases

ADD = phrases("add")
SUBTRACT = phrases("subtract")
MULTIPLY = phrases("multiply")


def _sum(skill: str, text: str, draw: Draw, line: str) -> Conversation:
    return Conversation(
        skill, (Message("user", text), Message("assistant", line)), phrasing=draw.core, item=line
    )


def add(draw: Draw) -> Conversation:
    """Ask for a sum of two numbers up to 100."""
    while True:
        top = 100 if draw.held else draw.pick((10, 30, 100, 100, 100, 100, 100, 200))
        a, b = draw.number(0, top), draw.number(0, top)
        if is_held(f"{a}+{b}") == draw.held:
            break
    text = draw.phrase(ADD, a=a, b=b, sign="+")
    return _sum("add", text, draw, f"{a} + {b} = {a + b}.")


def subtract(draw: Draw) -> Conversation:
    """Ask for a difference that is not negative."""
    while True:
        top = 100 if draw.held else draw.pick((10, 30, 100, 100, 100, 100, 100, 200))
        a, b = sorted((draw.number(0, top), draw.number(0, top)), reverse=True)
        if is_held(f"{a}-{b}") == draw.held:
            break
    text = draw.phrase(SUBTRACT, a=a, b=b)
    return _sum("subtract", text, draw, f"{a} - {b} = {a - b}.")


def multiply(draw: Draw) -> Conversation:
    """Ask for a product from the 12 x 12 table; only phrasings are held out."""
    a, b = draw.number(0, 12), draw.number(0, 12)
    text = draw.phrase(MULTIPLY, a=a, b=b, sign=draw.pick(("*", "x", "*", "\u00d7")))
    return _sum("multiply", text, draw, f"{a} x {b} = {a * b}.")


LIST = phrases("list")
COUNT = phrases("count")
COUNT_DOWN = phrases("count_down")
WEEK = phrases("week")
_NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven")


def lists(draw: Draw) -> Conversation:
    """Ask for some members of a group, a series, or counting up or down."""
    roll = draw.rng.random()
    if roll < 0.45:
        what = draw.pick(tuple(draw.lexicon.lists["lists"]))
        members = draw.lexicon.lists["lists"][what]
        n = draw.number(2, 7)
        word = str(n) if draw.chance(0.6) else _NUMBERS[n]
        heading = {"colors": ("colors", "colours")}.get(what, (what,))
        text = draw.phrase(LIST, n=word, what=draw.pick(heading))
        answer = ", ".join(members[:n]) + "."
        return Conversation(
            "lists",
            (Message("user", text), Message("assistant", answer)),
            kind="members",
            accept=tuple(members),
            count=n,
            phrasing=draw.core,
        )
    if roll < 0.57:
        series = draw.lexicon.lists["series"]
        what = draw.pick(tuple(series))
        text = draw.phrase(WEEK, what=what)
        return _sum("lists", text, draw, f"{series[what]}.")
    while True:
        low = draw.pick((0, 1, 1, 1, draw.number(0, 90)))
        high = low + draw.number(2, 14)
        down = draw.chance(0.3)
        if is_held(f"{low}..{high}{down}") == draw.held:
            break
    run = range(high, low - 1, -1) if down else range(low, high + 1)
    text = draw.phrase(COUNT_DOWN if down else COUNT, a=low, b=high)
    if str(low) not in "".join(c if c.isdigit() else " " for c in text).split():
        run = range(1, high + 1)
    return _sum("lists", text, draw, ", ".join(map(str, run)) + ".")
