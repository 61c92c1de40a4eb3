"""A report as JSON, for scripts. Fields are added, never renamed, under one schema name."""

from dataclasses import asdict
from typing import Any

import orjson

from provider_core.loadtest.caveats import caveats
from provider_core.loadtest.report import (
    Figure,
    PointResult,
    Report,
    Round,
    figures,
    metrics,
    ratios,
)
from provider_core.loadtest.summary import LATENCIES

SCHEMA = "provider-bench/1"


def report_json(report: Report) -> bytes:
    """One indented JSON document; times in milliseconds unless the name says otherwise.

    `comparison` of a point is left out when two servers must not be compared: what was measured is
    there, with its noise, and no ratio.
    """
    return orjson.dumps(_document(report), option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def _document(report: Report) -> dict[str, Any]:  # JSON
    return {
        "schema": SCHEMA,
        "started": report.started,
        "host": report.host,
        "targets": list(report.targets),
        "settings": dict(report.settings),
        "interrupted": report.is_interrupted,
        "quiet": report.is_quiet,
        "max_noise": report.max_noise,
        "noise_allowed": report.is_noise_allowed,
        "refusal": report.refusal,
        "caveats": list(caveats(report)),
        "points": [_point(report, result) for result in report.points],
    }


def _point(report: Report, result: PointResult) -> dict[str, Any]:  # JSON
    point: dict[str, Any] = {
        **asdict(result.point),
        "targets": [
            {
                "label": label,
                "figures": {name: _figure(f) for name, f in figures(result.of(label)).items()},
                "rounds": [_round(turn) for turn in result.rounds if turn.target == label],
            }
            for label in report.labels
        ],
    }
    if len(report.labels) == 2 and report.refusal is None:
        first, second = report.labels
        point["comparison"] = {
            name: _figure(ratio) for name, ratio in sorted(ratios(result, first, second).items())
        }
    return point


def _figure(figure: Figure) -> dict[str, float]:
    return {"median": figure.median, "best": figure.best}


def _round(turn: Round) -> dict[str, Any]:  # JSON
    summary = turn.summary
    return {
        "whole": turn.is_whole,
        "wall_s": summary.wall_s,
        "requests": summary.num_requests,
        "ok": summary.num_ok,
        "errors": dict(summary.errors),
        "error_details": dict(summary.error_details),
        "counted_by": summary.counted_by,
        "output_tokens": summary.output_tokens,
        "prompt_tokens": summary.prompt_tokens,
        "cached_tokens": summary.cached_tokens,
        "events": summary.num_events,
        "metrics": metrics(summary),
        "lag_p99_ms": 1000 * summary.lag.p99,
        "percentiles_ms": {
            name: [1000 * seconds for seconds in getattr(summary, name).curve] for name in LATENCIES
        },
        "events_per_s": list(turn.timeline),
        "resident_bytes": turn.resident_bytes,
        "generator_cpu_s": turn.generator_cpu_s,
        "machine": None if turn.machine is None else asdict(turn.machine),
    }
