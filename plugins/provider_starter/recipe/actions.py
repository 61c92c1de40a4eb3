"""What tools can do: for each action its names, its parameters and how people ask for it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

from provider_starter.recipe.conversation import Json
from provider_starter.recipe.lexicon import WORDS
from provider_starter.recipe.phrasing import Draw, Mood

Maker = Callable[[Draw], Json]

_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_FOLDERS = ("", "/tmp/", "docs/", "src/", "/home/")  # noqa: S108 - a path to talk about
_ENDINGS = (".txt", ".py", ".md", ".json", ".csv")


@dataclass(frozen=True, slots=True)
class Role:
    """A parameter: the slot it fills, its JSON type, likely names, and what describes it."""

    slot: str
    type: str
    names: tuple[str, ...]
    about: tuple[str, ...]
    make: Maker
    choices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Action:
    """One thing a tool can do, and how people ask for it."""

    names: tuple[str, ...]
    about: tuple[str, ...]
    roles: tuple[Role, ...]
    train: tuple[str, ...]
    held: tuple[str, ...]
    mood: Mood = "ask"
    extra: Role | None = None  # a parameter that may be left out


def _path(draw: Draw) -> str:
    return draw.pick(_FOLDERS) + draw.word() + draw.pick(_ENDINGS)


def _expression(draw: Draw) -> str:
    return f"{draw.number(2, 999)} {draw.pick('+-*/')} {draw.number(2, 999)}"


def _clock(draw: Draw) -> str:
    return f"{draw.number(7, 21)}:{draw.pick(('00', '15', '30', '45'))}"


def _ticker(draw: Draw) -> str:
    return "".join(draw.pick(_LETTERS) for _ in range(draw.number(2, 4)))


_MAKERS: dict[str, Maker] = {
    "city": Draw.city,
    "name": Draw.name,
    "thing": Draw.thing,
    "made_up": Draw.made_up,
    "path": _path,
    "expression": _expression,
    "clock": _clock,
    "ticker": _ticker,
}


def _maker(kind: str, *bounds: Json) -> Maker:
    """Return what makes values of a kind: one of some, a number, some words, or a named kind."""
    if kind == "one_of":
        return lambda draw: draw.pick(bounds)
    if kind == "number":
        return lambda draw: draw.number(bounds[0], bounds[1])
    if kind == "words":
        return lambda draw: " ".join(draw.word() for _ in range(draw.number(bounds[0], bounds[1])))
    return _MAKERS[kind]


def _role(entry: dict[str, Any]) -> Role:
    return Role(
        entry["slot"],
        entry["type"],
        tuple(entry["names"]),
        tuple(entry["about"]),
        _maker(*entry["make"]),
        tuple(entry.get("choices", ())),
    )


def _action(entry: dict[str, Any]) -> Action:
    return Action(
        tuple(entry["names"]),
        tuple(entry["about"]),
        tuple(map(_role, entry["roles"])),
        tuple(entry["train"]),
        tuple(entry["held"]),
        cast("Mood", entry["mood"]),
        _role(entry["extra"]) if "extra" in entry else None,
    )


_TABLES = json.loads((WORDS / "actions.json").read_text(encoding="utf-8"))
REALISTIC = tuple(map(_action, _TABLES["realistic"]))
COMPOSED = tuple(map(_action, _TABLES["composed"]))
HELD_COMPOSED = ("rate", "repair", "lend")  # composed actions that are never trained on
