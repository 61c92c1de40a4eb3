"""The pages under docs/deploy, by their platforms' names, and the listings on them."""

import re

from tests.architecture.source_files import ROOT

FOLDER = ROOT / "docs/deploy"
PAGES = sorted(path.stem for path in FOLDER.glob("*.md") if path.stem != "README")
LISTINGS = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)

_NAMED = re.compile(r"^`([\w.]+)`:\n\n```\w+\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def read(page: str) -> str:
    """Its text."""
    return (FOLDER / f"{page}.md").read_text(encoding="utf-8")


def files_of(page: str) -> dict[str, str]:
    """The files that a page tells to write, by name."""
    return dict(_NAMED.findall(read(page)))


def listings_of(page: str, *languages: str) -> list[str]:
    """Its listings in some languages."""
    return [text for language, text in LISTINGS.findall(read(page)) if language in languages]


def commands_of(page: str) -> list[str]:
    """What its reader types, from nothing to an answer: a line each, continued ones joined."""
    lines: list[str] = []
    for line in listings_of(page, "sh", "bash")[0].replace("\\\n", " ").splitlines():
        if lines and lines[-1].count("'") % 2:  # a quoted argument goes on
            lines[-1] += f"\n{line}"
        else:
            lines.append(line)
    return lines
