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


def test_the_front_page_tells_every_make_command_and_no_other() -> None:
    """What the README says to type works, and nothing has to be looked up."""
    targets = set(re.findall(r"^([a-z][a-z-]*):", MAKEFILE, re.MULTILINE))
    told = set(re.findall(r"\bmake ([a-z][a-z-]*)", README))

    assert told == targets


def test_every_page_can_be_reached_from_the_front_page() -> None:
    """A page that nothing leads to is not read."""
    reached: set[Path] = set()
    found = {ROOT / "README.md"}
    while found - reached:
        page = min(found - reached)
        reached.add(page)
        links = re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text(encoding="utf-8"))
        found |= {(page.parent / link).resolve() for link in links if link.endswith(".md")}
    records = ROOT / "docs/adr"  # linked as a folder
    measured = ROOT / "docs/gpu-results.md"  # there only where `make gpu` has run

    pages = {page.resolve() for page in (ROOT / "docs").rglob("*.md")} - {measured}
    assert {page for page in pages - reached if records not in page.parents} == set()


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
