"""The `provider` command: what it prints, and what it says when something is wrong."""

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from typer.testing import CliRunner

from provider_core import __version__
from provider_core.cli import BUILT_IN, make_cli

ROOT = Path(__file__).parents[3]


def provider(
    *arguments: str, folder: Path, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run the command as a process of its own in a folder."""
    return subprocess.run(
        [sys.executable, "-c", "from provider_core.cli import main; main()", *arguments],
        cwd=folder,
        env={"PATH": "", "PYTHONPATH": f"{ROOT}:{ROOT / 'plugins'}", **(env or {})},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )


def test_version_is_the_packages() -> None:
    """`provider version` names the distribution."""
    result = CliRunner().invoke(make_cli(), ["version"])

    assert result.output == f"provider-core {__version__}\n"


def test_built_in_commands_are_known_as_such() -> None:
    """`main` loads no plugin for exactly the commands that the core defines."""
    app = make_cli()
    functions = [command.callback for command in app.registered_commands]
    named = {function.__name__ for function in functions if function is not None}

    assert named | {group.name for group in app.registered_groups} == set(BUILT_IN)


@pytest.mark.parametrize("arguments", [[], ["list"]])
def test_plugins_shows_a_table(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`provider plugins` and `provider plugins list` are the same."""
    monkeypatch.chdir(tmp_path)

    result = CliRunner(env={"COLUMNS": "300"}).invoke(make_cli(), ["plugins", *arguments])

    header, *_, last = result.output.splitlines()
    assert header.split() == ["plugin", "package", "hooks", "module"]
    assert last.split()[:4] == ["core", "provider-core", __version__, "after_restore,"]


@pytest.mark.parametrize("arguments", [["--json"], ["list", "--json"]])
def test_plugins_can_be_read_by_programs(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`--json` gives the same facts as the table."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PROVIDER_PLUGINS", ",")

    result = CliRunner().invoke(make_cli(), ["plugins", *arguments])

    (core,) = json.loads(result.output)
    assert (core["name"], core["hooks"]) == (
        "core",
        ["after_restore", "fetch_model", "load_secret"],
    )


def test_help_lists_every_command(tmp_path: Path) -> None:
    """`provider --help` needs no settings and no model."""
    result = provider("--help", folder=tmp_path)

    assert (result.returncode, result.stderr) == (0, "")
    assert all(command in result.stdout for command in BUILT_IN)


@pytest.mark.parametrize(
    ("arguments", "env", "message"),
    [
        (["pull", "ftp://me:canary@host/tiny"], {}, "provider: model source ftp://...: an address"),
        (["serve", "--port", "99999"], {}, "provider: port in the command line: "),
        (["serve"], {"PROVIDER_PORT": "many"}, "provider: port in the environment: "),
        (["serve", "--config", "no.toml"], {}, "provider: cannot read the configuration file"),
        (["plugins"], {"PROVIDER_PLUGINS": "absent"}, "provider: plugin 'absent' is not installed"),
    ],
)
def test_a_wrong_setting_is_one_line_and_exit_code_2(
    tmp_path: Path, arguments: list[str], env: dict[str, str], message: str
) -> None:
    """No traceback: the line names what to change."""
    result = provider(*arguments, folder=tmp_path, env=env)

    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith(message)
    assert result.stderr.count("\n") == 1


def test_a_broken_plugin_leaves_the_help_readable(tmp_path: Path) -> None:
    """The error stands on stderr; the commands of the core are still shown."""
    result = provider("--help", folder=tmp_path, env={"PROVIDER_PLUGINS": "absent"})

    assert result.returncode == 0
    assert result.stderr.startswith("provider: plugin 'absent' is not installed")
    assert "serve" in result.stdout


def test_an_unknown_command_is_refused(tmp_path: Path) -> None:
    """A typo is exit code 2."""
    result = provider("sevre", folder=tmp_path)

    assert result.returncode == 2
    assert "sevre" in result.stderr


def test_another_failure_is_exit_code_1(tmp_path: Path) -> None:
    """Scripts can tell a wrong setting from a server that is not there."""
    result = provider("chat", "--url", "http://127.0.0.1:9", folder=tmp_path)

    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.startswith("provider: no server answers at http://127.0.0.1:9")
