"""Bills for people: a report with plots and an invoice, each one HTML file that loads nothing."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from datetime import date
from decimal import Decimal
from html import escape

from provider_core.billing.audit.invoice import Invoice
from provider_core.billing.audit.totals import COLUMNS, Grouping, Total
from provider_core.billing.money import add_money, format_money
from provider_core.loadtest.page import document, render_table
from provider_core.loadtest.svg import COLOURS, Chart, Series, render
from provider_core.loadtest.table import Table

_OTHERS = "all others"


def report_page(by: Sequence[Grouping], sums: Sequence[Total]) -> str:
    """Sums as a table and, by day, as plots."""
    table = Table("Totals", tuple(by), COLUMNS)
    table.rows.extend((*one.groups, *map(str, one.numbers)) for one in sums)
    total = Decimal(0)
    for one in sums:
        total = add_money(total, Decimal(one.cost))
    parts = [f"<p>{len(sums)} rows, {format_money(total)} USD.</p>", render_table(table)]
    charts = _charts(by, sums) if "day" in by and sums else []
    parts += ['<div class="charts">', *map(render, charts), "</div>"]
    return document("Usage", parts)


def invoice_page(invoice: Invoice, *, provider: str) -> str:
    """An invoice: exact lines, the exact sum, and what is due."""
    table = Table("Usage", ("model", "unit"), ("quantity", "USD per unit", "USD"))
    table.rows.extend(
        (
            line.model,
            line.meter,
            f"{line.quantity:,}",
            format_money(line.unit_price),
            format_money(line.amount),
        )
        for line in invoice.lines
    )
    period = f"{invoice.period.since} to before {invoice.period.until}, UTC"
    return document(
        f"Invoice for {invoice.customer}",
        [
            f"<p>{escape(provider)}, {escape(period)}</p>",
            render_table(table),
            f"<p>Exact sum: {format_money(invoice.exact)} USD</p>",
            f"<p><strong>Due: {invoice.due:,} USD</strong>, rounded once, half to even.</p>",
        ],
    )


def _charts(by: Sequence[Grouping], sums: Sequence[Total]) -> list[Chart]:
    first = min(one.groups[by.index("day")] for one in sums)

    def chart(name: str, title: str, unit: str, value: Callable[[Total], Decimal]) -> Chart:
        return Chart(
            name=name,
            title=title,
            x_label=f"days since {first}",
            y_label=unit,
            series=_series(by, sums, first, value),
        )

    return [
        chart("cost", "Billed by day", "USD", lambda one: Decimal(one.cost)),
        chart("requests", "Requests by day", "requests", lambda one: Decimal(one.requests)),
        chart("prompt", "Prompt tokens by day", "tokens", lambda one: Decimal(one.prompt_tokens)),
        chart(
            "completion",
            "Completion tokens by day",
            "tokens",
            lambda one: Decimal(one.completion_tokens),
        ),
    ]


def _series(
    by: Sequence[Grouping], sums: Sequence[Total], first: str, value: Callable[[Total], Decimal]
) -> list[Series]:
    """One line for each model, or else for all; of many models the largest have one."""
    start = date.fromisoformat(first)
    lines: dict[str, dict[int, Decimal]] = defaultdict(lambda: defaultdict(Decimal))
    for one in sums:
        named = dict(zip(by, one.groups, strict=True))
        day = (date.fromisoformat(named["day"]) - start).days
        lines[named.get("model", "all")][day] += value(one)
    largest = sorted(lines, key=lambda name: -sum(lines[name].values()))
    for name in largest[len(COLOURS) - 1 :] if len(largest) > len(COLOURS) else ():
        for day, amount in lines.pop(name).items():
            lines[_OTHERS][day] += amount
    return [
        Series(name, [(day, float(amount)) for day, amount in sorted(days.items())], colour)
        for colour, (name, days) in enumerate(lines.items())
    ]
