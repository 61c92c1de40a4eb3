"""A plan for people and for scripts: tables, notes, JSON and one HTML page with charts."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from html import escape
from itertools import pairwise
from statistics import fmean
from typing import Any

import orjson

from provider_core.loadtest.page import document, render_table
from provider_core.loadtest.summary import PERCENTILES, Distribution
from provider_core.loadtest.svg import Chart, Series, render
from provider_core.loadtest.table import Table
from provider_core.planning.costs import StepCosts
from provider_core.planning.forecast import Forecast
from provider_core.planning.rehearsal import Rehearsal
from provider_core.planning.search import Search

SCHEMA = "provider-plan/1"

NOT_MODELLED = (
    "a refusal: what has no room waits at the router, and is not answered 429",
    "prefix caches and speculation, beyond what the bench had of them",
    "fairness between keys: all requests count as one key's",
    "an autoscaler's averages: here more replicas start at once, fewer after the idle time-out",
    "failures, preemption, differences between replicas, and the network",
    "storage, egress, minimum billing times, and a marketplace's share of the price",
)
"""What people must know of each figure."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanReport:
    """A search with what it rests on.

    Attributes:
        costs: Fitted.
        rehearsals: The bench's rounds, simulated with them.
        ttft_p95_s: To be kept; `None` asks nothing.
        settings: What was asked for, for the reader.
        warnings: Why the figures may be worth less than they look.
    """

    costs: StepCosts
    rehearsals: Sequence[Rehearsal]
    search: Search
    ttft_p95_s: float | None
    settings: Mapping[str, str | int | float | None]
    warnings: Sequence[str]


def tables(report: PlanReport) -> list[Table]:
    """The forecast, and what else was tried."""
    found = [_forecast_table(report.search.chosen)]
    if len(report.search.tried) > 1:
        found.append(_tried_table(report.search.tried))
    return found


def notes(report: PlanReport) -> list[str]:
    """What the figures rest on, and what they leave out."""
    lines = [f"Warning: {warning}" for warning in report.warnings]
    limit_s = report.ttft_p95_s
    if limit_s is not None and not report.search.is_met:
        most = report.search.chosen.scaling.min_replicas
        lines.append(f"Warning: not even {most} replicas keep a TTFT p95 of {limit_s:g} s.")
    if report.search.chosen.timeout_share:
        share = 100 * report.search.chosen.timeout_share
        lines.append(f"Warning: the platform would cut {share:.2g} % of the requests.")
    costs = report.costs
    lines.append(
        f"A call lasts {1000 * costs.call_s:.3g} ms, {1000 * costs.row_s:.3g} ms more for each "
        f"row, {1000 * costs.context_token_s:.3g} ms for each token that rows hold and "
        f"{1000 * costs.prompt_token_s:.3g} ms for each prompt token; a request takes "
        f"{1000 * costs.request_s:.3g} ms beside."
        + (" A call that decodes takes a chunk of a prompt, too." if costs.mixes else "")
    )
    lines.append(
        f"Simulated with that, the bench's own {len(report.rehearsals)} rounds are off by "
        f"{_errors([each.throughput_error for each in report.rehearsals])} in throughput and by "
        f"{_errors([each.ttft_error for each in report.rehearsals])} in mean TTFT."
    )
    lines.append(f"Not modelled: {'; '.join(NOT_MODELLED)}.")
    return lines


def _errors(errors: Sequence[float]) -> str:
    sizes = [100 * abs(error) for error in errors]
    return f"{fmean(sizes):.2g} % on average (at most {max(sizes):.2g} %)"


def _forecast_table(found: Forecast) -> Table:
    table = Table("Forecast", ("",), ("",))

    def row(name: str, value: str) -> None:
        table.rows.append((name, value))

    row("requests", f"{found.num_requests:,} in {found.duration_s:,.0f} s")
    row("replicas, peak", str(found.peak_replicas))
    row("replicas, mean", f"{found.mean_replicas:.2f}")
    row("output tokens/s", f"{found.output_tokens_per_s:.1f}")
    row("requests/s", f"{found.requests_per_s:.3g}")
    row("TTFT p50", _seconds(found.ttft.p50))
    row("TTFT p95", _seconds(found.ttft.p95))
    row("TPOT p50", _seconds(found.tpot.p50))
    row("E2E p95", _seconds(found.e2e.p95))
    row("behind a cold start", f"{100 * found.cold_share:.2f} %")
    row("utilisation, steps", f"{100 * found.utilisation:.1f} %")
    row("utilisation, slots", f"{100 * found.slot_utilisation:.1f} %")
    row("cost", f"{found.cost:,.2f} USD for {found.replica_hours:,.2f} replica hours")
    row("cost per million output tokens", _dollars(found.cost_per_million_output_tokens))
    row("cost per million tokens, prompts too", _dollars(found.cost_per_million_tokens))
    ratio = f"{found.prompt_price_ratio:g}"
    row("break-even per million output tokens", _dollars(found.break_even_output_price))
    row(
        f"  and per million prompt tokens, at {ratio} of it",
        _dollars(found.break_even_prompt_price),
    )
    return table


def _tried_table(tried: Sequence[Forecast]) -> Table:
    headings = ("peak", "mean", "TTFT p50", "TTFT p95", "cold", "USD", "USD/M output")
    table = Table("By replicas that are always ready", (), ("least", *headings))
    for each in tried:
        table.rows.append(
            (
                str(each.scaling.min_replicas),
                str(each.peak_replicas),
                f"{each.mean_replicas:.2f}",
                _seconds(each.ttft.p50),
                _seconds(each.ttft.p95),
                f"{100 * each.cold_share:.2f} %",
                f"{each.cost:,.2f}",
                _dollars(each.cost_per_million_output_tokens),
            )
        )
    return table


def _seconds(value: float) -> str:
    return f"{1000 * value:.0f} ms" if value < 10 else f"{value:,.1f} s"


def _dollars(value: float | None) -> str:
    return "-" if value is None else f"{value:,.4g} USD"


def report_json(report: PlanReport) -> bytes:
    """One indented JSON document; fields are added, never renamed, under one schema name."""
    found: dict[str, Any] = {  # JSON
        "schema": SCHEMA,
        "settings": dict(report.settings),
        "warnings": list(report.warnings),
        "costs": asdict(report.costs),
        "fit": [
            {
                "load": each.measured.load,
                "prompt_tokens": each.measured.prompt_tokens,
                "output_tokens": each.measured.output_tokens,
                "throughput_error": each.throughput_error,
                "ttft_error": each.ttft_error,
            }
            for each in report.rehearsals
        ],
        "ttft_p95_s": report.ttft_p95_s,
        "is_met": report.search.is_met,
        "forecast": _forecast_json(report.search.chosen),
        "tried": [_forecast_json(each) for each in report.search.tried],
        "not_modelled": list(NOT_MODELLED),
    }
    return orjson.dumps(found, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def _forecast_json(found: Forecast) -> dict[str, Any]:  # JSON
    fields = asdict(found) | {
        "output_tokens_per_s": found.output_tokens_per_s,
        "requests_per_s": found.requests_per_s,
        "cost_per_million_output_tokens": found.cost_per_million_output_tokens,
        "cost_per_million_tokens": found.cost_per_million_tokens,
        "break_even_output_price": found.break_even_output_price,
        "break_even_prompt_price": found.break_even_prompt_price,
    }
    del fields["sizes"]
    for name in ("ttft", "tpot", "e2e"):
        del fields[name]["curve"], fields[name]["count"]
        fields[name] = {f"{part}_s": seconds for part, seconds in fields[name].items()}
    return fields


def page(report: PlanReport) -> str:
    """One HTML file that loads nothing from anywhere."""
    parts = ["<ul>"]
    for note in notes(report):
        kind = ' class="warning"' if note.startswith("Warning") else ""
        parts.append(f"<li{kind}>{escape(note)}</li>")
    parts += ["</ul>", *map(render_table, tables(report))]
    parts += ['<div class="charts">', *map(render, _charts(report)), "</div>"]
    settings = Table("Settings", ("",), ("",))
    settings.rows.extend((k, str(v)) for k, v in report.settings.items() if v is not None)
    return document("Plan of replicas", [*parts, render_table(settings)])


def _charts(report: PlanReport) -> list[Chart]:
    chosen, tried = report.search.chosen, report.search.tried
    steps: list[tuple[float, float]] = []
    for (at_s, size), (next_s, _) in pairwise([*chosen.sizes, (chosen.duration_s, 0)]):
        steps += [(at_s, size), (next_s, size)]
    charts = [
        Chart(
            name="replicas",
            title="Replicas that are paid for",
            x_label="seconds",
            y_label="replicas",
            series=[Series("replicas", steps)],
        ),
        _distribution_chart(chosen.ttft),
    ]
    if len(tried) > 1:
        least = [each.scaling.min_replicas for each in tried]
        latency = [(x, each.ttft.p95) for x, each in zip(least, tried, strict=True)]
        charts.append(
            Chart(
                name="ttft_by_replicas",
                title="Time to first token by replicas that are always ready",
                x_label="replicas",
                y_label="seconds, p95",
                series=[Series("TTFT p95", latency)],
            )
        )
    return charts


def _distribution_chart(ttft: Distribution) -> Chart:
    return Chart(
        name="ttft",
        title="Time to first token",
        x_label="seconds",
        y_label="per cent of the requests",
        series=[Series("TTFT", [(s, p) for p, s in enumerate(ttft.curve)])],
        note=", ".join(f"p{p} {_seconds(getattr(ttft, f'p{p}'))}" for p in PERCENTILES),
    )
