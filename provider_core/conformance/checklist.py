"""Questionnaires as data: a title, sections, and lines with what answers each of them."""

import tomllib
from dataclasses import dataclass
from importlib.resources import files

NAMES = ("openrouter_integration", "openrouter_listing", "production_readiness")
"""The checklists there are."""


@dataclass(frozen=True, slots=True)
class Line:
    """One question.

    Attributes:
        text: Its wording.
        answer: A verb with its arguments, which `answers` explains.
    """

    text: str
    answer: str


@dataclass(frozen=True, slots=True)
class Section:
    """A heading and the lines below it.

    Attributes:
        level: Of the heading: 2 is below the title.
    """

    title: str
    level: int
    lines: tuple[Line, ...]


@dataclass(frozen=True, slots=True)
class Checklist:
    """A whole document."""

    name: str
    title: str
    sections: tuple[Section, ...]

    @property
    def lines(self) -> list[Line]:
        """All lines, in order."""
        return [line for section in self.sections for line in section.lines]


def load_checklist(name: str) -> Checklist:
    """Read one of `NAMES`."""
    file = files("provider_core.conformance") / "data" / f"{name}.toml"
    values = tomllib.loads(file.read_text(encoding="utf-8"))
    sections = tuple(
        Section(
            section["title"],
            section["level"],
            tuple(Line(text, answer) for text, answer in section.get("lines", ())),
        )
        for section in values["section"]
    )
    return Checklist(name, values["title"], sections)
