"""Where the results of `provider bench` go: the terminal and files."""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table as RichTable

from provider_core.errors import ConfigurationError
from provider_core.loadtest.charts import charts
from provider_core.loadtest.page import page
from provider_core.loadtest.report import Report
from provider_core.loadtest.report_json import report_json
from provider_core.loadtest.svg import render
from provider_core.loadtest.table import Table, notes, tables

STDOUT = "-"
WIDTH_OF_A_FILE = 120  # columns, where no terminal says


@dataclass(frozen=True, slots=True, kw_only=True)
class Outputs:
    """Files that a report is written to, beside the terminal.

    Attributes:
        json_file: All figures; `-` is stdout.
        html_file: The report with its charts.
        svg_dir: Each chart as a file; made where it is missing.
    """

    json_file: str | None = None
    html_file: Path | None = None
    svg_dir: Path | None = None

    def check(self) -> None:
        """See that each can be written, before hours of measuring depend on it.

        Raises:
            ConfigurationError: One cannot.
        """
        if self.json_file is not None and self.json_file != STDOUT:
            check_file("--json", Path(self.json_file))
        if self.html_file is not None:
            check_file("--html", self.html_file)
        if self.svg_dir is not None:
            _check_folder("--svg", self.svg_dir)


def check_file(option: str, file: Path) -> None:
    """See that a file can be written.

    Raises:
        ConfigurationError: It cannot.
    """
    if file.is_dir():
        raise ConfigurationError(f"{option} is {file}, a folder; name a file")
    if not file.exists() and not file.parent.is_dir():
        raise ConfigurationError(f"{option} is {file}, and there is no folder {file.parent}")
    if not os.access(file if file.exists() else file.parent, os.W_OK):
        raise ConfigurationError(f"{option} is {file}, which cannot be written")


def _check_folder(option: str, folder: Path) -> None:
    folder = folder.absolute()
    nearest = next(path for path in (folder, *folder.parents) if path.exists())
    if not nearest.is_dir():
        raise ConfigurationError(f"{option} is {folder}, and {nearest} is no folder")
    if not os.access(nearest, os.W_OK):
        raise ConfigurationError(f"{option} is {folder}, and {nearest} cannot be written")


def publish(report: Report, outputs: Outputs) -> None:
    """Print the tables unless they would be a comparison that is refused, and write the files.

    Raises:
        ConfigurationError: A file could not be written; the others have been.
    """
    console = Console(stderr=outputs.json_file == STDOUT)
    if not console.is_terminal:
        console = Console(stderr=console.stderr, width=WIDTH_OF_A_FILE)
    for table in tables(report):
        console.print(rich_table(table), "")
    for line in notes(report):
        console.print(line, soft_wrap=True, highlight=False, markup=False)
    if report.refusal is not None:
        typer.echo(f"provider: {report.refusal}; --allow-noise prints it all the same", err=True)
    failures = []
    for write in _writes(report, outputs):
        try:
            write()
        except OSError as error:
            failures.append(f"{error.filename} cannot be written: {error.strerror}")
    if failures:
        raise ConfigurationError("; ".join(failures))


def _writes(report: Report, outputs: Outputs) -> Iterator[Callable[[], object]]:
    """Each output's writing; there are no figures where a comparison is refused."""
    if outputs.json_file == STDOUT:
        yield lambda: typer.echo(report_json(report).decode(), nl=False)
    elif (json_file := outputs.json_file) is not None:
        yield lambda: Path(json_file).write_bytes(report_json(report))
    if (html_file := outputs.html_file) is not None:
        yield lambda: html_file.write_text(page(report), encoding="utf-8")
    if (svg_dir := outputs.svg_dir) is not None:
        yield lambda: _write_charts(report, svg_dir)


def _write_charts(report: Report, folder: Path) -> None:
    for chart in charts(report):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{chart.name}.svg").write_text(render(chart), encoding="utf-8")


def rich_table(table: Table) -> RichTable:
    """A table for the terminal."""
    rendered = RichTable(title=table.title, title_justify="left", box=None, pad_edge=False)
    for heading in table.words:
        rendered.add_column(heading, no_wrap=True)
    for heading in table.numbers:
        rendered.add_column(heading, justify="right", no_wrap=True)
    for row in table.rows:
        rendered.add_row(*map(escape, row))
    return rendered
