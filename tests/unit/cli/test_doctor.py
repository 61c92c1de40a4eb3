"""`provider doctor`: what it looks at, and what it says when something is wrong."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from provider_core import Finding, hookimpl
from provider_core.billing_settings import JournalSettings
from provider_core.cli import make_cli
from provider_core.cli.doctor import examine_disks, examine_plugins
from provider_core.plugins import PluginManager
from provider_core.settings import Settings


class Backend:
    """Loads models, and says what it is told to."""

    def __init__(self, *findings: Finding) -> None:
        self._findings = list(findings)

    @hookimpl
    def load_model(self) -> None:
        """Decline."""

    @hookimpl
    def diagnose(self) -> list[Finding]:
        """Say it."""
        return self._findings


WORKS = Finding(name="works", status="ok", detail="1.0")
LACKS = Finding(name="lacks", status="missing", detail="no runtime", remedy="pip install acme")


def manager(*plugins: object) -> PluginManager:
    """With these plugins, asked in this order."""
    made = PluginManager()
    for place, plugin in reversed(list(enumerate(plugins))):
        made.register(plugin, f"plugin-{place}")
    return made


def doctor(folder: Path, *options: str) -> tuple[int, dict[str, dict[str, Any]]]:
    """Run it over a data folder; its exit code and findings by name."""
    arguments = ["doctor", "--json", "--data-dir", str(folder), *options]
    result = CliRunner().invoke(make_cli(), arguments)
    return result.exit_code, {found["name"]: found for found in json.loads(result.output)}


def test_a_machine_that_can_serve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python, a backend, and both folders, which it does not make."""
    monkeypatch.chdir(tmp_path)

    code, found = doctor(tmp_path / "data")

    assert code == 0
    for name in ("python", "provider-core", "onnxruntime", "data folder", "journal"):
        assert found[name]["status"] == "ok"
    assert list(tmp_path.iterdir()) == []


def test_the_table_names_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """People read a line for each finding."""
    monkeypatch.chdir(tmp_path)
    blocked = tmp_path / "file"
    blocked.touch()

    result = CliRunner(env={"COLUMNS": "300"}).invoke(
        make_cli(), ["doctor", "--data-dir", str(blocked / "data")]
    )

    (line,) = [line for line in result.output.splitlines() if "data folder" in line]
    assert line.split()[0] == "failed"
    assert "name another folder: PROVIDER_DATA_DIR" in line
    assert result.exit_code == 1


def test_wrong_settings_are_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the words that `serve` has for them."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "provider.toml").write_text("nonsense = 1")

    code, found = doctor(tmp_path)

    assert code == 1
    assert "nonsense" in found["settings"]["detail"]


def test_a_runtime_that_is_missing_is_no_failure_beside_one_that_works() -> None:
    """Nobody needs every backend."""
    assert examine_plugins(manager(Backend(LACKS), Backend(WORKS))) == [LACKS, WORKS]


def test_no_backend_at_all_is_a_failure() -> None:
    """Nothing could be served."""
    *_, last = examine_plugins(manager(Backend(LACKS)))

    assert (last.name, last.status) == ("backends", "failed")
    assert last.remedy.startswith("pip install")


def test_a_backend_that_says_nothing_is_trusted() -> None:
    """The hook is younger than many a plugin."""

    class Silent:
        @hookimpl
        def load_model(self) -> None:
            """Decline."""

    assert examine_plugins(manager(Silent())) == []


def test_a_plugin_that_raises_is_a_failure() -> None:
    """Its exception is the finding."""

    class Broken(Backend):
        @hookimpl
        def diagnose(self) -> list[Finding]:
            raise OSError("no library")

    broken, working = examine_plugins(manager(Broken(), Backend(WORKS)))

    assert (broken.name, broken.status) == ("plugin-0", "failed")
    assert broken.detail == "OSError: no library"
    assert working == WORKS


def test_a_full_disk_is_a_failure(tmp_path: Path) -> None:
    """The journal refuses requests at the same limit."""
    journal = JournalSettings(min_free_bytes=2**62)

    _, found = examine_disks(Settings(data_dir=tmp_path, journal=journal))

    assert (found.name, found.status) == ("journal", "failed")
    assert "are needed" in found.detail


def test_a_journal_that_is_off_is_said(tmp_path: Path) -> None:
    """Because bills then end with the process."""
    settings = Settings(data_dir=tmp_path, journal=JournalSettings(enabled=False))

    _, found = examine_disks(settings)

    assert (found.status, found.detail) == (
        "missing",
        "journal.enabled is false: bills end with the process",
    )
