"""What the commands of `provider usage` print."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from provider_core.billing.audit.books import ALWAYS, Books, Period
from provider_core.billing.audit.marketplace_records import Difference
from provider_core.billing.audit.reconcile import Finding, verify
from provider_core.billing.audit.totals import COLUMNS, Grouping, Total, to_csv
from provider_core.cli.usage_pages import report_page

_WIDTH_OF_A_FILE = 300


def tell(found: Sequence[Finding], num_events: int, *, as_json: bool) -> int:
    """Print findings and a summary; the exit code."""
    if as_json:
        for finding in found:
            typer.echo(json.dumps(asdict(finding) | {"discrepancy": finding.is_discrepancy}))
    else:
        for finding in found:
            typer.echo(f"{finding.kind}: {finding.subject}: {finding.detail}")
        counts = Counter(finding.kind for finding in found)
        said = ", ".join(f"{count} {kind}" for kind, count in sorted(counts.items()))
        typer.echo(f"{num_events} events; {said or 'all is well'}")
    return int(any(finding.is_discrepancy for finding in found))


def warn(books: Books, period: Period = ALWAYS) -> int:
    """Name, on standard error, the lines that are left out or in doubt; the exit code."""
    wrong = [finding for finding in verify(books, period) if finding.is_discrepancy]
    for finding in wrong:
        typer.echo(f"{finding.kind}: {finding.subject}: {finding.detail}", err=True)
    return int(bool(wrong))


def tell_differences(found: Sequence[Difference], num_records: int, *, as_json: bool) -> int:
    """Print how two records of generations differ; the exit code."""
    for one in found:
        if as_json:
            typer.echo(json.dumps(asdict(one)))
        else:
            typer.echo(f"{one.kind}: {one.generation_id}: {one.detail}")
    if not as_json:
        typer.echo(f"{num_records} records; {len(found) or 'no'} differences")
    return 1 if found else 0


def show_totals(form: str, by: Sequence[Grouping], sums: Sequence[Total]) -> None:
    """Print sums as `table`, `csv`, `html` or `json`."""
    match form:
        case "csv":
            typer.echo(to_csv(by, sums), nl=False)
        case "html":
            typer.echo(report_page(by, sums), nl=False)
        case "json":
            for one in sums:
                named = dict(zip((*by, *COLUMNS), (*one.groups, *one.numbers), strict=True))
                typer.echo(json.dumps(named))
        case _:
            _print_table(by, sums)


def _print_table(by: Sequence[Grouping], sums: Sequence[Total]) -> None:
    table = Table(box=None, pad_edge=False)
    for group in by:
        table.add_column(group, overflow="fold")
    for column in COLUMNS:
        table.add_column(column, justify="right", no_wrap=True)
    for one in sums:
        table.add_row(*map(escape, one.groups), *map(str, one.numbers))
    console = Console()
    if not console.is_terminal:
        console = Console(width=_WIDTH_OF_A_FILE)
    console.print(table)
