"""Sizes and names of files, and what the front page promises."""

import re
from pathlib import Path

import pytest

from tests.architecture.source_files import ROOT, SHIPPED, SourceFile, source_files

MAX_LINES = 400
NAMES_OF_NOTHING = {"base", "common", "helpers", "misc", "util", "utils"}

FILES = source_files(*SHIPPED, "tests", "bench")
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
README = (ROOT / "README.md").read_text(encoding="utf-8")


def ids(file: SourceFile) -> str:
    """A file's name in the report."""
    return str(file.path)


@pytest.mark.parametrize("file", FILES, ids=ids)
def test_no_file_is_too_long(file: SourceFile) -> None:
    """Whoever passes the limit has two files in one."""
    num_lines = file.text.count("\n")

    assert num_lines <= MAX_LINES


@pytest.mark.parametrize("file", FILES, ids=ids)
def test_files_are_named_after_what_they_hold(file: SourceFile) -> None:
    """A drawer for everything is none."""
    assert set(file.path.with_suffix("").parts) & NAMES_OF_NOTHING == set()


def test_plugins_and_handlers_are_named_provider() -> None:
    """No folder of ours can shadow a library when `plugins/` is on the path."""
    packages = {file.path.parts[1] for file in FILES if file.path.parts[0] in SHIPPED[1:]}

    assert [name for name in sorted(packages) if not name.startswith("provider_")] == []


def test_every_make_command_of_the_front_page_exists() -> None:
    """What the README tells a newcomer to type works."""
    targets = set(re.findall(r"^([a-z][a-z-]*):", MAKEFILE, re.MULTILINE))
    told = set(re.findall(r"\bmake ([a-z][a-z-]*)", README))

    assert told - targets == set()


def documents() -> list[Path]:
    """The pages people read."""
    return [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]


@pytest.mark.parametrize("page", documents(), ids=lambda page: str(page.relative_to(ROOT)))
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    """A page that moves takes its links along."""
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text(encoding="utf-8"))

    assert [link for link in links if not (page.parent / link).exists()] == []


def test_every_target_is_phony() -> None:
    """A file of a target's name must not stop it."""
    targets = set(re.findall(r"^([a-z][a-z-]*):", MAKEFILE, re.MULTILINE))
    phony = re.search(r"^\.PHONY: (.*)$", MAKEFILE, re.MULTILINE)

    assert phony is not None
    assert targets == set(phony[1].split())
