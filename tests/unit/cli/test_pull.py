"""`provider pull`."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from provider_core.cli import make_cli
from provider_core.errors import ConfigurationError


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
