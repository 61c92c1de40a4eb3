"""Commands of `provider` that a page shows: they are those of the command line."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest
import typer
from typer.core import TyperCommand, TyperGroup

from provider_core import hookspecs
from provider_core.cli import make_cli
from provider_core.plugins import make_plugin_manager
from provider_core.settings import load_settings
from tests.architecture.source_files import ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
_BLOCK = re.compile(r"^```(?:sh|bash|console)?\n(.*?)^```", re.MULTILINE | re.DOTALL)
_TYPED = re.compile(
    r"(?:^|[|&;(])(?: *\$)? *(?:[A-Z_]+=\S* )*(?:\S*/)?provider (?P<words>[a-z][^|&;)#>\n]*)",
    re.MULTILINE,
)
_NAMED = re.compile(r"`provider (?P<words>[a-z][^`>\n]*)[`>]")


@pytest.fixture(scope="module")
def command_line(tmp_path_factory: pytest.TempPathFactory) -> TyperGroup:
    """What is built in, and what this project's plugins add."""
    app = make_cli()
    settings = load_settings(data_dir=tmp_path_factory.mktemp("data"))
    make_plugin_manager(settings).every(hookspecs.register_commands, app=app)
    group = typer.main.get_command(app)
    assert isinstance(group, TyperGroup)
    return group


def shown(page: Path) -> Iterator[str]:
    """What follows `provider` wherever a page shows it, in a listing or a sentence."""
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    for block in _BLOCK.findall(text):
        yield from (found["words"] for found in _TYPED.finditer(block))
    yield from (found["words"] for found in _NAMED.finditer(text))


def unknown(command: TyperGroup | TyperCommand, words: str) -> list[str]:
    """The words that are no command or option of the command line."""
    left = shlex.split(words.replace("'", ""))
    while isinstance(command, TyperGroup) and left:
        name = left.pop(0)
        if name not in command.commands:
            return [name]
        command = cast("TyperGroup | TyperCommand", command.commands[name])
    options = {option for parameter in command.params for option in parameter.opts}
    asked = [word.partition("=")[0] for word in left if word.startswith("-")]
    return [option for option in asked if option not in {*options, "--help"}]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_and_options_exist(page: Path, command_line: TyperGroup) -> None:
    """A renamed option takes the pages along."""
    assert {words: wrong for words in shown(page) if (wrong := unknown(command_line, words))} == {}


def test_commands_are_found_and_judged(command_line: TyperGroup, tmp_path: Path) -> None:
    """Wherever they stand on a line."""
    page = tmp_path / "page.md"
    page.write_text("```sh\nKEY=1 .venv/bin/provider serve --prot 1 && provider bake\n```\n")
    assert [unknown(command_line, words) for words in shown(page)] == [["--prot"], ["bake"]]
    assert sum(len(list(shown(each))) for each in PAGES) > 60
