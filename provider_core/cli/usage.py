"""`provider usage`: bills checked, compared, summed and sent on.

Exits with 0 if all is well, 1 if there are discrepancies, 2 if something cannot be read. Lines that
are not as they were written are in no sum and no export, which name them and exit with 1.
"""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Check, reconcile, sum and export the usage lines.", no_args_is_help=True)

Paths = Annotated[
    list[Path] | None,
    typer.Argument(
        metavar="[PATH]...",
        help="Journals' folders or files, and logs, also as .gz; default: this provider's journal.",
    ),
]
Journal = Annotated[
    list[Path] | None, typer.Option(metavar="DIR", help="A journal; default: this provider's.")
]
Since = Annotated[str, typer.Option(metavar="TIME", help="First day or time in UTC.")]
Until = Annotated[str, typer.Option(metavar="TIME", help="The same, excluded.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object a line.")]


class Target(StrEnum):
    """Whom usage is exported to."""

    CLOUDEVENTS = "cloudevents"
    OPENMETER = "openmeter"
    LAGO = "lago"
    STRIPE = "stripe"
    AWS_MARKETPLACE = "aws-marketplace"
    FOCUS_CSV = "focus-csv"


class Form(StrEnum):
    """How sums are shown."""

    TABLE = "table"
    CSV = "csv"
    HTML = "html"
    JSON = "json"


class Group(StrEnum):
    """What tells sums apart."""

    DAY = "day"
    KEY = "key"
    ACCOUNT = "account"
    MODEL = "model"


@app.command()
def verify(paths: Paths = None, *, as_json: AsJson = False) -> None:
    """Check every line by itself: checksum, schema, hash, sums and cost."""
    from provider_core.billing.audit import reconcile
    from provider_core.cli.usage_sources import read_books
    from provider_core.cli.usage_texts import tell

    with read_books(paths) as books:
        found = reconcile.verify(books)
        num_events = books.num_events
    raise typer.Exit(tell(found, num_events, as_json=as_json))


@app.command("reconcile")
def reconcile_(
    *,
    journal: Annotated[
        list[Path] | None,
        typer.Option(metavar="DIR", help="A journal; default: this provider's, if nothing else."),
    ] = None,
    log: Annotated[
        list[Path] | None, typer.Option(metavar="FILE", help="What standard output said.")
    ] = None,
    collector: Annotated[
        list[Path] | None, typer.Option(metavar="FILE", help="What a collector has of it.")
    ] = None,
    access_log: Annotated[
        list[Path] | None, typer.Option(metavar="FILE", help="Access lines, if not in the log.")
    ] = None,
    since: Since = "",
    until: Until = "",
    max_request: Annotated[
        float, typer.Option(min=0, help="Seconds after which a generation should be settled.")
    ] = 3600.0,
    as_json: AsJson = False,
) -> None:
    """Compare journal, log and collector, and name every line that one of them lacks or changed.

    Logs without --journal are compared with their own control totals alone.
    """
    import time

    from provider_core.billing.audit import reconcile
    from provider_core.billing.audit.books import Books
    from provider_core.cli.usage_sources import (
        default_journal,
        parse_period,
        read_access,
        read_into,
    )
    from provider_core.cli.usage_texts import tell

    period = parse_period(since, until)
    if not (journal or log or collector):
        journal = [default_journal()]
    with Books() as books:
        read_into(books, "journal", journal)
        read_into(books, "log", log)
        read_into(books, "collector", collector)
        read_access(books, access_log)
        found = reconcile.reconcile(books, period, now_s=time.time(), max_request_s=max_request)
        num_events = books.num_events
    raise typer.Exit(tell(found, num_events, as_json=as_json))


@app.command()
def emit(
    *,
    journal: Journal = None,
    since: Since = "",
    until: Until = "",
    missing_from: Annotated[
        list[Path] | None, typer.Option(metavar="FILE", help="Leave out what these files have.")
    ] = None,
) -> None:
    """Write lines of the journal again, with the same ids, for a collector that lost them."""
    import time

    from provider_core.billing.audit.books import Books
    from provider_core.cli.usage_sources import parse_period, read_books, read_into
    from provider_core.cli.usage_texts import warn
    from provider_core.json_lines import encode_line, format_timestamp

    period = parse_period(since, until)
    with Books() as known, read_books(journal) as books:
        read_into(known, "collector", missing_from, may_be_empty=True)
        for event in books.events(period):
            if known.find(event["event_id"]) is None:
                again = {
                    "recovered": True,
                    "emit_attempt": event["emit_attempt"] + 1,
                    "emitted_at": format_timestamp(time.time()),
                }
                typer.echo(encode_line(event | again), nl=False)
        raise typer.Exit(warn(books, period))


@app.command()
def report(
    paths: Paths = None,
    *,
    by: Annotated[
        list[Group] | None, typer.Option(help="What tells sums apart; default: all but account.")
    ] = None,
    since: Since = "",
    until: Until = "",
    form: Annotated[Form, typer.Option("--format", help="Its form.")] = Form.TABLE,
) -> None:
    """Sum what was used and billed, exactly, by day, key and model."""
    from provider_core.billing.audit.totals import GROUPINGS, totals
    from provider_core.cli.usage_sources import GROUPS, parse_period, read_books
    from provider_core.cli.usage_texts import show_totals, warn

    groupings = [GROUPS[group.value] for group in by] if by else list(GROUPINGS)
    period = parse_period(since, until)
    with read_books(paths) as books:
        show_totals(form.value, groupings, totals(books, period, groupings))
        raise typer.Exit(warn(books, period))


@app.command()
def export(
    paths: Paths = None,
    *,
    to: Annotated[Target, typer.Option(help="Whose form.")],
    since: Since = "",
    until: Until = "",
    agreements: Annotated[
        Path | None, typer.Option(metavar="FILE", help="AWS Marketplace's buyers, as TOML.")
    ] = None,
    product_code: Annotated[
        str, typer.Option(help="Of an AWS Marketplace listing of before June 2026.")
    ] = "",
) -> None:
    """Write usage in the form of a billing service."""
    from functools import partial

    from provider_core.billing.audit import aws_marketplace, exports, focus
    from provider_core.cli.usage_sources import parse_period, provider_names, read_books, read_file
    from provider_core.cli.usage_texts import warn
    from provider_core.errors import ConfigurationError
    from provider_core.json_lines import encode_line

    period = parse_period(since, until)
    slug, name = provider_names()
    with read_books(paths) as books:
        match to:
            case Target.FOCUS_CSV:
                typer.echo(focus.to_csv(books, period, provider=name), nl=False)
            case Target.AWS_MARKETPLACE:
                if (agreements is None) == (not product_code):
                    raise ConfigurationError(
                        "--to aws-marketplace needs either --agreements or a --product-code"
                    )
                buyers = None
                if agreements is not None:
                    buyers = read_file(partial(aws_marketplace.read_agreements, agreements))
                for batch in aws_marketplace.batches(
                    books, period, product_code=product_code, agreements=buyers
                ):
                    typer.echo(encode_line(batch), nl=False)
            case _:
                for event in exports.export_events(to.value, books, period, provider=slug):
                    typer.echo(encode_line(event), nl=False)
        raise typer.Exit(warn(books, period))


@app.command()
def invoice(
    customer: Annotated[str, typer.Argument(help="An account, or the id of a key.")],
    paths: Paths = None,
    *,
    month: Annotated[str, typer.Option(metavar="YYYY-MM", help="Which month, in UTC.")],
) -> None:
    """Write a customer's invoice of a month as one HTML file, rounded once, half to even."""
    from provider_core.billing.audit import invoice as invoices
    from provider_core.cli.usage_pages import invoice_page
    from provider_core.cli.usage_sources import parse_month, provider_names, read_books
    from provider_core.cli.usage_texts import warn

    period = parse_month(month)
    _, name = provider_names()
    with read_books(paths) as books:
        made = invoices.invoice(books, customer, period)
        typer.echo(invoice_page(made, provider=name), nl=False)
        raise typer.Exit(warn(books, period))


@app.command()
def compare(
    paths: Paths = None,
    *,
    openrouter: Annotated[
        Path, typer.Option(metavar="FILE", help="Its records of generations, as JSON.")
    ],
    as_json: AsJson = False,
) -> None:
    """Compare bills with OpenRouter's records, by generation."""
    from provider_core.billing.audit import marketplace_records
    from provider_core.cli.usage_sources import read_books, read_file
    from provider_core.cli.usage_texts import tell_differences, warn

    records = read_file(lambda: marketplace_records.read_records(openrouter))
    with read_books(paths) as books:
        found = marketplace_records.compare(books, records)
        doubt = warn(books)
    raise typer.Exit(tell_differences(found, len(records), as_json=as_json) or doubt)
