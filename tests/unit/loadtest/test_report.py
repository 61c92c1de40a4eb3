"""Medians, bests, ratios, and when there is no comparison."""

import json
from typing import Any

import pytest

from provider_core.loadtest.report import Report, figures, ratios
from provider_core.loadtest.report_json import report_json
from provider_core.loadtest.summary import Slo
from provider_core.loadtest.table import notes, tables
from tests.unit.loadtest.made_reports import NOISY, QUIET, made_point, made_report, made_round

LATENCY_METRICS = {
    f"{name}_{part}_ms"
    for name in ("ttft", "itl", "tpot", "e2e")
    for part in ("mean", "p50", "p90", "p95", "p99")
}
RATES = {
    "output_tokens_per_s",
    "prompt_tokens_per_s",
    "requests_per_s",
    "offered_per_s",
    "goodput_per_s",
}


def compared(machine: Any = QUIET) -> Report:
    """Two servers, one twice as fast."""
    rounds = (made_round("A", ttft_s=0.2), made_round("B", ttft_s=0.4, machine=machine))
    return made_report(made_point(*rounds), labels=("A", "B"))


def test_figures_are_medians_and_bests_of_rounds() -> None:
    """More is better for rates, less for latencies."""
    rounds = [made_round(ttft_s=ttft_s) for ttft_s in (0.5, 1.0, 4.0)]
    found = figures(rounds)

    assert (found["ttft_p50_ms"].median, found["ttft_p50_ms"].best) == (1000.0, 500.0)
    assert found["output_tokens_per_s"].median == pytest.approx(11 / 2)
    assert found["output_tokens_per_s"].best == pytest.approx(11 / 1.5)
    assert "goodput_per_s" not in found


def test_a_round_cut_short_counts_only_alone() -> None:
    """Its figures are of the beginning of a load."""
    whole, cut = made_round(ttft_s=1.0), made_round(ttft_s=9.0, is_whole=False)

    assert made_point(whole, cut).of("A") == [whole]
    assert made_point(cut).of("A") == [cut]


def test_a_round_cut_short_is_not_compared() -> None:
    """Not even alone."""
    assert ratios(made_point(made_round("A"), made_round("B", is_whole=False)), "A", "B") == {}


def test_ratios_are_the_first_over_the_second() -> None:
    """Of medians to medians, bests to bests."""
    rounds = [
        *(made_round("A", ttft_s=ttft_s) for ttft_s in (1.0, 2.0, 6.0)),
        *(made_round("B", ttft_s=ttft_s) for ttft_s in (4.0, 4.0, 5.0)),
    ]
    found = ratios(made_point(*rounds), "A", "B")

    assert (found["ttft_p50_ms"].median, found["ttft_p50_ms"].best) == (0.5, 0.25)
    assert "prompt_tokens_per_s" not in found  # the servers did not count them: 0 over 0


def test_a_noisy_round_forbids_the_comparison() -> None:
    """Every form of the report leaves the ratios out, and says by how much it was not quiet."""
    report = compared(NOISY)
    document = json.loads(report_json(report))

    assert report.refusal == (
        "no comparison: the machine was not quiet: others used 0.40 and steal took 0.20 of a "
        "processor, most of all cc1plus (pid 7) 0.39; the limit is 0.10"
    )
    assert tables(report) == []
    assert (document["quiet"], document["refusal"]) == (False, report.refusal)
    assert "comparison" not in document["points"][0]


def test_noise_may_be_allowed_and_is_marked() -> None:
    """Then the comparison is there, and so is the warning."""
    report = compared(NOISY)
    report.is_noise_allowed = True

    assert (report.refusal, report.is_quiet) == (None, False)
    assert len(tables(report)) == 3
    assert [note for note in notes(report) if note.startswith("Warning: the machine was not quiet")]


@pytest.mark.parametrize(("machine", "is_quiet"), [(QUIET, True), (None, None)])
def test_one_server_or_a_quiet_machine_is_reported(machine: Any, is_quiet: object) -> None:
    """Where nothing can be known, that is what is said."""
    rounds = (made_round("A", machine=machine), made_round("B", machine=machine))
    report = made_report(made_point(*rounds), labels=("A", "B"))

    assert (report.is_quiet, report.refusal) == (is_quiet, None)
    assert any("cannot be known" in note for note in notes(report)) == (is_quiet is None)
    assert made_report(made_point(made_round(machine=NOISY))).refusal is None


def test_the_json_document_keeps_its_names() -> None:
    """Scripts read them: fields may be added here, never renamed or taken away."""
    document = json.loads(report_json(compared()))
    (point,) = document["points"]
    target = point["targets"][0]
    (turn,) = target["rounds"]

    assert document["schema"] == "provider-bench/1"
    assert set(document) == {
        "schema", "started", "host", "targets", "settings", "interrupted", "quiet", "max_noise",
        "noise_allowed", "refusal", "caveats", "points",
    }  # fmt: skip
    assert set(document["targets"][0]) == {"label", "url", "path", "model", "pid"}
    assert set(point) == {
        "concurrency", "rate", "prompt_tokens", "output_tokens", "targets", "comparison",
    }  # fmt: skip
    assert set(target) == {"label", "figures", "rounds"}
    assert set(turn) == {
        "whole", "wall_s", "requests", "ok", "errors", "error_details", "counted_by",
        "output_tokens", "prompt_tokens", "cached_tokens", "events", "metrics", "lag_p99_ms",
        "percentiles_ms", "events_per_s", "resident_bytes", "generator_cpu_s", "machine",
    }  # fmt: skip
    assert set(turn["metrics"]) == LATENCY_METRICS | RATES
    assert set(turn["percentiles_ms"]) == {"ttft", "itl", "tpot", "e2e"}
    assert set(turn["machine"]) == {"generator", "server", "others", "steal", "busiest"}
    assert turn["metrics"]["ttft_p50_ms"] == 200.0
    assert point["comparison"]["ttft_p95_ms"] == {"median": 0.5, "best": 0.5}
    assert target["figures"]["ttft_p95_ms"] == {"median": 200.0, "best": 200.0}


def test_tables_have_a_cell_for_every_heading() -> None:
    """And a row for every server at every point."""
    slo = Slo(ttft=1.0)
    points = [made_point(made_round(slo=slo), concurrency=c) for c in (1, 8)]
    points.append(made_point(made_round(slo=slo, sending=(0.0, 4.0)), concurrency=None, rate=0.5))
    throughput, latencies = tables(made_report(*points, slo=slo))

    for table in (throughput, latencies):
        widths = {len(row) for row in table.rows}
        assert widths == {len(table.words) + len(table.numbers)}
    assert [row[0] for row in throughput.rows] == ["c=1", "c=8", "0.5/s"]
    sent = [row[throughput.numbers.index("sent/s") + 3] for row in throughput.rows]
    assert sent == ["-", "-", "0.25"]
    assert throughput.rows[0][throughput.numbers.index("good/s") + 3] == "0.67"
    assert [row[3] for row in latencies.rows] == ["TTFT", "ITL", "TPOT", "E2E"] * 3


def test_nothing_measured_is_no_table() -> None:
    """An interrupt may come at once."""
    report = made_report(made_point())
    report.is_interrupted = True

    assert json.loads(report_json(report))["interrupted"] is True
    assert "Interrupted: what was measured until then." in notes(report)
    assert tables(report) == []
    assert not [note for note in notes(report) if "/proc" in note]
    assert next(notes(report)) == "a machine; nothing was measured."


@pytest.mark.parametrize(
    ("are_whole", "basis"),
    [
        ((True, True, True), "medians over 3 round(s)"),
        ((True, False), "medians over 1 round(s)"),
        ((False,), "figures of a round that was cut short"),
    ],
)
def test_figures_say_over_how_many_rounds_they_are(are_whole: list[bool], basis: str) -> None:
    """Those that ran to their end, not those that were planned."""
    report = made_report(made_point(*(made_round(is_whole=whole) for whole in are_whole)))

    assert next(notes(report)) == f"a machine; {basis}."


def test_points_may_have_different_numbers_of_rounds() -> None:
    """After an interrupt."""
    points = [made_point(made_round(), made_round()), made_point(made_round(), concurrency=2)]

    assert next(notes(made_report(*points))) == "a machine; medians over at most 2 round(s)."
