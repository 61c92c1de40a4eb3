"""`provider doctor`: is everything there that serving needs, and what helps if not."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:  # imported by the command itself, so that help is quick
    from provider_core.diagnosis import Finding
    from provider_core.plugins import PluginManager
    from provider_core.settings import Settings

MIN_PYTHON = (3, 11)
SYNCED_BYTES = 4096
_MARKS = {"ok": "[green]ok[/]", "missing": "[yellow]missing[/]", "failed": "[red]failed[/]"}


def doctor(
    *,
    config: Annotated[
        Path | None, typer.Option(help="Configuration file; default: ./provider.toml.")
    ] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Folder for keys and caches.")] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON array instead of a table.")
    ] = False,
) -> None:
    """Look at what serving needs: Python, backends, disks. Exits with 1 if something fails."""
    from provider_core.errors import ProviderError
    from provider_core.plugins import make_plugin_manager
    from provider_core.settings import load_settings

    options = {"config": config, "data_dir": data_dir}
    findings = _examine_python()
    try:
        settings = load_settings(**{k: v for k, v in options.items() if v is not None})
        plugins = make_plugin_manager(settings)
    except ProviderError as error:
        findings.append(_failed("settings", error.message))
    else:
        findings += examine_plugins(plugins)
        findings += examine_disks(settings)
    if as_json:
        _print_json(findings)
    else:
        _print_table(findings)
    raise typer.Exit(1 if any(finding.status == "failed" for finding in findings) else 0)


def examine_plugins(plugins: PluginManager) -> list[Finding]:
    """What each plugin says of itself; a failure if no backend can load a model."""
    from provider_core import hookspecs

    found: list[Finding] = []
    backends = {info.name for info in plugins.describe() if "load_model" in info.hooks}
    has_backend = False
    for name, answer in plugins.ask_each(hookspecs.diagnose):
        if isinstance(answer, Exception):
            found.append(_failed(name, f"{type(answer).__name__}: {answer}"))
            continue
        found += answer or []
        is_whole = all(finding.status == "ok" for finding in answer or ())
        has_backend = has_backend or (name in backends and is_whole)
        backends.discard(name)
    if not has_backend and not backends:  # one that says nothing of itself may well work
        remedy = 'pip install "provider-core[onnxruntime]"'
        found.append(_failed("backends", "none can load a model", remedy))
    return found


def examine_disks(settings: Settings) -> list[Finding]:
    """Whether the data folder and the journal's can be written, and how fast the latter is."""
    from provider_core.diagnosis import Finding

    found = [_examine_folder("data folder", settings.data_dir)]
    if not settings.journal.enabled:
        detail = "journal.enabled is false: bills end with the process"
        return [*found, Finding(name="journal", status="missing", detail=detail)]
    folder = settings.journal.dir or settings.data_dir / "journal"
    needed = settings.journal.min_free_bytes
    return [*found, _examine_folder("journal", folder, min_free_bytes=needed, is_synced=True)]


def _examine_python() -> list[Finding]:
    from provider_core import __version__
    from provider_core.diagnosis import Finding

    python = ".".join(str(part) for part in sys.version_info[:3])
    is_new = sys.version_info >= MIN_PYTHON
    return [
        Finding(name="python", status="ok", detail=f"{python}, {sys.executable}")
        if is_new
        else _failed("python", f"{python} is too old", "install Python 3.11 or newer"),
        Finding(name="provider-core", status="ok", detail=__version__),
    ]


def _examine_folder(
    name: str, folder: Path, *, min_free_bytes: int = 0, is_synced: bool = False
) -> Finding:
    """Write a file there that has no name, and time it if each write must reach the disk."""
    from provider_core.diagnosis import Finding

    folder = folder.absolute()
    there = next(path for path in (folder, *folder.parents) if path.exists())
    try:
        with tempfile.TemporaryFile(dir=there) as file:
            file.write(bytes(SYNCED_BYTES))
            file.flush()
            started_s = time.perf_counter()
            if is_synced:
                os.fdatasync(file.fileno())
            synced_s = time.perf_counter() - started_s
        system = os.statvfs(there)
    except OSError as error:
        detail = f"{folder} cannot be written: {error.strerror}"
        return _failed(name, detail, "name another folder: PROVIDER_DATA_DIR")
    free_bytes = system.f_bavail * system.f_frsize
    if free_bytes < min_free_bytes:
        detail = f"{folder} has {free_bytes} free bytes, {min_free_bytes} are needed"
        return _failed(name, detail, "free some, or lower journal.min_free_bytes")
    detail = f"{folder}, {free_bytes / 1e9:.1f} GB free"
    if is_synced:
        detail += f", {1e3 * synced_s:.1f} ms a write"
    return Finding(name=name, status="ok", detail=detail)


def _failed(name: str, detail: str, remedy: str = "") -> Finding:
    from provider_core.diagnosis import Finding

    return Finding(name=name, status="failed", detail=detail, remedy=remedy)


def _print_json(findings: list[Finding]) -> None:
    import json
    from dataclasses import asdict

    typer.echo(json.dumps([asdict(finding) for finding in findings], indent=2))


def _print_table(findings: list[Finding]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, pad_edge=False, show_header=False)
    for _ in range(3):
        table.add_column(overflow="fold")
    for finding in findings:
        text = finding.detail + (f"; {finding.remedy}" if finding.remedy else "")
        table.add_row(_MARKS[finding.status], finding.name, escape(text))
    Console().print(table)
