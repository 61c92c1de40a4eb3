"""The page about `provider bench` has every option, and no other."""

import re
from pathlib import Path

import typer

from provider_core.cli.bench import bench
from provider_core.loadtest.report_json import SCHEMA
from provider_core.loadtest.summary import LATENCIES

PAGE = (Path(__file__).parents[3] / "docs" / "benchmarking.md").read_text(encoding="utf-8")


def options() -> set[str]:
    """What the command line takes, by first name."""
    app = typer.Typer()
    app.command()(bench)
    parameters = typer.main.get_command(app).params
    names = {parameter.opts[0] for parameter in parameters if parameter.opts[0].startswith("--")}
    return names - {"--install-completion", "--show-completion"}


def test_every_option_has_a_row() -> None:
    """And every row is of an option."""
    rows = [line.split("|")[1] for line in PAGE.splitlines() if line.startswith("| `--")]
    told = {name for row in rows for name in re.findall(r"`(--[a-z-]+)`", row)}

    assert told == options()


def test_every_latency_is_defined() -> None:
    """Under its name in the report."""
    assert [name for name in LATENCIES if f"| {name.upper()} |" not in PAGE] == []
    assert SCHEMA in PAGE
