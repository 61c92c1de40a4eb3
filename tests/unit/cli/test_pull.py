"""`provider pull`."""

import sys
from importlib import import_module
from io import StringIO
from pathlib import Path

import pytest
from structlog.testing import capture_logs
from typer.testing import CliRunner

from provider_core.cli import make_cli
from provider_core.errors import ConfigurationError

pull_module = import_module("provider_core.cli.pull")  # the package's name for it is the command


def pull(*arguments: str) -> tuple[str, str]:
    """What the command writes to stdout, and to stderr."""
    result = CliRunner().invoke(make_cli(), ["pull", *arguments], catch_exceptions=False)
    assert result.exit_code == 0
    return result.stdout, result.stderr


def test_a_folder_is_named_as_it_is(tmp_path: Path) -> None:
    """Nothing is fetched or copied."""
    (tmp_path / "tiny").mkdir()
    out, _ = pull(str(tmp_path / "tiny"), "--data-dir", str(tmp_path / "data"))
    assert out == f"{tmp_path / 'tiny'}\n"
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("uri", ["other://tiny", "/no/such/folder"])
def test_what_cannot_be_had_is_said(tmp_path: Path, uri: str) -> None:
    """In one line, as at every start."""
    with pytest.raises(ConfigurationError, match=uri):
        pull(uri, "--data-dir", str(tmp_path))


class Terminal(StringIO):
    """A screen that remembers."""

    def isatty(self) -> bool:
        """It is one."""
        return True


def test_a_terminal_has_a_bar(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Of bytes; what is no terminal has log lines."""
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    with pull_module.show_progress("hf://acme/tiny") as progress:
        progress.advance(500_000, 1_000_000)
        progress.small_files_ready(tmp_path)
        progress.advance(1_000_000, 1_000_000)
    assert "hf://acme/tiny" in screen.getvalue()
    assert "1.0/1.0 MB" in screen.getvalue()
    monkeypatch.setattr(sys, "stderr", StringIO())
    with pull_module.show_progress("hf://acme/tiny") as progress, capture_logs() as logs:
        progress.advance(500_000, 1_000_000)
        progress.advance(600_000, 1_000_000)
    assert [(line["event"], line["percent"]) for line in logs] == [("model.fetching", 50)]
