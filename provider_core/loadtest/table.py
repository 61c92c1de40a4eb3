"""A report as tables of words and numbers, and the notes that go with every form of it."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from provider_core.loadtest.caveats import caveats, tokens_per_answer
from provider_core.loadtest.report import (
    Figure,
    PointResult,
    Report,
    Round,
    describe_noise,
    figures,
    ratios,
)
from provider_core.loadtest.summary import PERCENTILES

NAMES = {"ttft": "TTFT", "itl": "ITL", "tpot": "TPOT", "e2e": "E2E"}
RATIO_COLUMNS = {
    "output_tokens_per_s": "tok/s",
    "ttft_p50_ms": "TTFT p50",
    "ttft_p95_ms": "TTFT p95",
    "itl_p50_ms": "ITL p50",
    "itl_p95_ms": "ITL p95",
    "tpot_p50_ms": "TPOT p50",
    "e2e_p95_ms": "E2E p95",
}


@dataclass(frozen=True, slots=True)
class Table:
    """Cells as text, for any form.

    Attributes:
        words: Headings of the first columns, which hold words.
        numbers: Headings of the rest.
        rows: Each as long as both together.
    """

    title: str
    words: tuple[str, ...]
    numbers: tuple[str, ...]
    rows: list[tuple[str, ...]] = field(default_factory=list)


def tables(report: Report) -> list[Table]:
    """Throughput, latencies and the ratios of two servers.

    None where that is refused, or no round has begun.
    """
    if report.refusal is not None or not any(report.rounds()):
        return []
    found = [_throughput(report), _latencies(report)]
    return [*found, _ratios(report)] if len(report.targets) == 2 else found


def _rows(report: Report) -> Iterator[tuple[PointResult, str, list[Round]]]:
    for result in report.points:
        for label in report.labels:
            if rounds := result.of(label):
                yield result, label, rounds


def _words(result: PointResult) -> list[str]:
    point = result.point
    if point.prompt_tokens == "trace":
        return [point.load, "trace"]
    return [point.load, f"{point.prompt_tokens}/{point.output_tokens}"]


def _throughput(report: Report) -> Table:
    numbers = ["tok/s", "best", "prompt tok/s", "req/s", "ok", "failed", "tok/answer"]
    numbers += ["MB", "CPUs"]
    optional = {}
    if any(result.point.rate is not None for result in report.points):
        optional["sent/s"] = "offered_per_s"
    if report.slo is not None:
        optional["good/s"] = "goodput_per_s"
    numbers[4:4] = list(optional)
    table = Table("Throughput", ("load", "in/out", "server"), tuple(numbers))
    for result, label, rounds in _rows(report):
        found = figures(rounds)
        speed = found["output_tokens_per_s"]
        row = [*_words(result), label, f"{speed.median:.1f}", f"{speed.best:.1f}"]
        row.append(f"{found['prompt_tokens_per_s'].median:.0f}")
        row.append(f"{found['requests_per_s'].median:.2f}")
        row += [_number(found.get(name)) for name in optional.values()]
        row += [str(sum(turn.summary.num_ok for turn in rounds)), _errors(rounds)]
        mean = tokens_per_answer(rounds)
        row.append("-" if mean is None else f"{mean:.1f}")
        resident = [turn.resident_bytes for turn in rounds if turn.resident_bytes]
        row.append(f"{max(resident) / 1e6:.0f}" if resident else "-")
        used = [turn.machine.server for turn in rounds if turn.machine is not None]
        row.append(f"{max(used):.2f}" if used else "-")
        table.rows.append(tuple(row))
    return table


def _errors(rounds: Iterable[Round]) -> str:
    counts: dict[str, int] = {}
    for turn in rounds:
        for kind, count in turn.summary.errors.items():
            counts[kind] = counts.get(kind, 0) + count
    return ", ".join(f"{count} {kind}" for kind, count in sorted(counts.items())) or "0"


def _latencies(report: Report) -> Table:
    numbers = [f"p{p}" for p in PERCENTILES]
    table = Table("Latency in ms", ("load", "in/out", "server", ""), (*numbers, "mean"))
    for result, label, rounds in _rows(report):
        found = figures(rounds)
        words = [*_words(result), label]
        for name, title in NAMES.items():
            cells = [_number(found.get(f"{name}_{part}_ms")) for part in (*numbers, "mean")]
            table.rows.append((*words, title, *cells))
            words = [""] * len(words)
    return table


def _number(figure: Figure | None) -> str:
    """The median with three significant digits or so."""
    if figure is None:
        return "-"
    digits = 0 if figure.median >= 100 else 1 if figure.median >= 10 else 2
    return f"{figure.median:.{digits}f}"


def _ratios(report: Report) -> Table:
    first, second = report.labels
    title = f"{first} over {second}: ratio of the medians / of the bests of the rounds"
    table = Table(title, ("load", "in/out"), tuple(RATIO_COLUMNS.values()))
    for result in report.points:
        found = ratios(result, first, second)
        cells = [_ratio(found.get(name)) for name in RATIO_COLUMNS]
        table.rows.append((*_words(result), *cells))
    return table


def _ratio(figure: Figure | None) -> str:
    return "-" if figure is None else f"{figure.median:.2f}/{figure.best:.2f}"


def notes(report: Report) -> Iterator[str]:
    """What a reader must know to trust the figures, a line each."""
    yield f"{report.host}; {_basis(report)}."
    for target in report.targets:
        model = f", model {target['model']}" if target["model"] else ""
        process = "" if target["pid"] else ", process not known"
        yield (
            f"{target['label']}: {target['url']}{target['path']}{model}{process}; "
            f"{_counted(report, str(target['label']))}."
        )
    if any(report.rounds()):
        yield _quietness(report)
    yield from (f"Warning: {caveat}." for caveat in caveats(report))
    num_events = sum(turn.summary.num_events for turn in report.rounds())
    if num_events:
        cpu_s = sum(turn.generator_cpu_s for turn in report.rounds())
        wall_s = sum(turn.summary.wall_s for turn in report.rounds())
        yield (
            f"This generator used {cpu_s / wall_s:.3f} of a processor, "
            f"{1e6 * cpu_s / num_events:.0f} us per event."
        )
    yield from _failures(report)
    if report.is_interrupted:
        yield "Interrupted: what was measured until then."


def _basis(report: Report) -> str:
    """Over how many rounds the figures are taken."""
    numbers = [sum(turn.is_whole for turn in rounds) for _, _, rounds in _rows(report)]
    if not numbers:
        return "nothing was measured"
    if not max(numbers):
        return "figures of a round that was cut short"
    return (
        f"medians over {'' if min(numbers) == max(numbers) else 'at most '}{max(numbers)} round(s)"
    )


def _counted(report: Report, label: str) -> str:
    """Who counted the output tokens, and how they were packed."""
    rounds = [turn.summary for turn in report.rounds() if turn.target == label]
    by = sorted({summary.counted_by for summary in rounds} - {"nothing"})
    num_events = sum(summary.num_events for summary in rounds)
    if not by or not num_events:
        return "no output"
    share = sum(summary.output_tokens for summary in rounds) / num_events
    return f"output tokens counted by {' and '.join(by)}, {share:.2f} of them an event"


def _quietness(report: Report) -> str:
    loudest = report.loudest
    if loudest is None:
        return "Whether the machine was quiet cannot be known here: there is no /proc."
    if loudest.noise > report.max_noise:
        return f"Warning: {describe_noise(loudest, report.max_noise)}."
    return (
        f"Quiet: at most {loudest.others:.2f} of a processor went to others and "
        f"{loudest.steal:.2f} to steal."
    )


def _failures(report: Report) -> Iterator[str]:
    details: dict[tuple[str, str], str] = {}
    for turn in report.rounds():
        for kind, detail in turn.summary.error_details.items():
            details.setdefault((turn.target, kind), detail)
    for (label, kind), detail in sorted(details.items()):
        yield f"{label} failed with {kind}: {detail}"
