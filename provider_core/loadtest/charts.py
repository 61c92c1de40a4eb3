"""Which charts show a report: cost against load and length, the trade, distributions, time."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from provider_core.loadtest.caveats import caveats
from provider_core.loadtest.report import Point, PointResult, Report, Round, figures
from provider_core.loadtest.summary import Distribution
from provider_core.loadtest.svg import COLOURS, Chart, Series

LATENCY_TITLES = {
    "ttft": "Time to first token",
    "itl": "Inter-token latency",
    "e2e": "End-to-end latency",
}


@dataclass(frozen=True, slots=True)
class Axis:
    """One thing that a sweep may vary.

    Attributes:
        name: Of the charts' files.
        label: Under the axis.
        value_of: Where a point lies on it; `None` if it does not.
        rest_of: What else tells two points apart.
    """

    name: str
    label: str
    value_of: Callable[[Point], float | None]
    rest_of: Callable[[Point], str]


@dataclass(frozen=True, slots=True)
class Line:
    """One server's points that differ in nothing but an axis, in its order."""

    name: str
    label: str
    points: list[tuple[float, PointResult]]

    def series(self, metric: str) -> list[tuple[float, float]]:
        """Places on the axis and medians of a metric, where there is one."""
        found = ((x, figures(result.of(self.label)).get(metric)) for x, result in self.points)
        return [(x, figure.median) for x, figure in found if figure is not None]


def _prompt_length(point: Point) -> float | None:
    mean = point.prompt_tokens.partition("±")[0]
    return float(mean) if mean.isdigit() else None


def _prompt(point: Point) -> str:
    return f"{point.prompt_tokens} in"


AXES = (
    Axis("concurrency", "clients", lambda point: point.concurrency, _prompt),
    Axis("rate", "requests per second", lambda point: point.rate, _prompt),
    Axis("prompt", "prompt tokens", _prompt_length, lambda point: point.load),
)


def charts(report: Report) -> list[Chart]:
    """All charts that a report has data for; none where a comparison is refused."""
    if report.refusal is not None:
        return []
    found = [chart for axis in AXES for chart in _sweep_charts(report, axis)]
    return [*found, *_distributions(report), *_timelines(report)]


def _sweep_charts(report: Report, axis: Axis) -> Iterator[Chart]:
    lines = _lines(report, axis)
    if not lines:
        return

    def chart(name: str, title: str, unit: str, metrics: dict[str, str]) -> Chart:
        return Chart(
            name=f"{name}-by-{axis.name}",
            title=f"{title} by {axis.label}",
            x_label=axis.label,
            y_label=unit,
            series=[
                Series(line.name + suffix, points, colour, is_dashed=index > 0)
                for colour, line in enumerate(lines)
                for index, (metric, suffix) in enumerate(metrics.items())
                if (points := line.series(metric))
            ],
            x_scale="log",
            note=_warning(report),
        )

    yield chart("throughput", "Output", "tokens per second", {"output_tokens_per_s": ""})
    if report.slo is not None:
        title = f"Answers within {report.slo}"
        yield chart("goodput", title, "requests per second", {"goodput_per_s": ""})
    for metric, title in LATENCY_TITLES.items():
        percentiles = {f"{metric}_p50_ms": " p50", f"{metric}_p95_ms": " p95"}
        yield chart(metric, title, "ms", percentiles)
    if axis.name != "prompt":
        yield _trade(report, axis, lines)


def _lines(report: Report, axis: Axis) -> list[Line]:
    """Every server's runs of two points or more along an axis."""
    groups: dict[str, dict[float, PointResult]] = {}
    for result in report.points:
        value = axis.value_of(result.point)
        if value is not None and result.rounds:
            groups.setdefault(axis.rest_of(result.point), {})[value] = result
    groups = {rest: points for rest, points in groups.items() if len(points) > 1}
    return [
        Line(label if len(groups) == 1 else f"{label}, {rest}", label, sorted(points.items()))
        for rest, points in groups.items()
        for label in report.labels
    ]


def _trade(report: Report, axis: Axis, lines: list[Line]) -> Chart:
    """What more load gains in throughput and costs in latency; one marker for each load."""
    series = []
    for colour, line in enumerate(lines):
        latency = dict(line.series("itl_p95_ms"))
        points = [(latency[x], y, x) for x, y in line.series("output_tokens_per_s") if x in latency]
        names = [f"{x:g} {axis.label}" for _, _, x in points]
        series.append(Series(line.name, [(x, y) for x, y, _ in points], colour, names=names))
    return Chart(
        name=f"trade-by-{axis.name}",
        title=f"Throughput against inter-token latency, a marker for each number of {axis.label}",
        x_label="inter-token latency p95 in ms",
        y_label="tokens per second",
        series=[one for one in series if one.points],
        note=_warning(report),
    )


def _distributions(report: Report) -> Iterator[Chart]:
    """Cumulative distributions of the first round of each point; of the last one if too many."""
    for metric, title in LATENCY_TITLES.items():
        curves = [
            (f"{label}, {result.point.load}, {_prompt(result.point)}", distribution)
            for result in _few_points(report)
            for label in report.labels
            for turn in result.of(label)[:1]
            if (distribution := _distribution(turn, metric)).count > 1
        ]
        if curves:
            yield Chart(
                name=f"{metric}-distribution",
                title=f"{title}: share of samples up to a time (99 %)",
                x_label="ms",
                y_label="per cent",
                series=[
                    Series(name, [(1000 * s, p) for p, s in enumerate(of.curve[:100])], colour)
                    for colour, (name, of) in enumerate(curves)
                ],
                note=_warning(report),
            )


def _distribution(turn: Round, metric: str) -> Distribution:
    distribution: Distribution = getattr(turn.summary, metric)
    return distribution


def _few_points(report: Report) -> list[PointResult]:
    """As many of the last points as there are colours for."""
    return report.points[-(len(COLOURS) // len(report.labels)) :]


def _timelines(report: Report) -> Iterator[Chart]:
    """Events per second over the first round of the last point."""
    if not report.points:
        return
    result = report.points[-1]
    turns = [(label, turn) for label in report.labels for turn in result.of(label)[:1]]
    series = [
        Series(
            label,
            [
                (bin_ * turn.summary.wall_s / len(turn.timeline), y)
                for bin_, y in enumerate(turn.timeline)
            ],
            colour,
        )
        for colour, (label, turn) in enumerate(turns)
        if turn.timeline
    ]
    if series:
        yield Chart(
            name="timeline",
            title=f"Events over time, {result.point}",
            x_label="seconds",
            y_label="events per second",
            series=series,
            note=_warning(report),
        )


def _warning(report: Report) -> str:
    """What must stay with a chart that is cut out of its report."""
    warnings = []
    if report.loudest is not None and report.loudest.noise > report.max_noise:
        warnings.append("Measured on a machine that was not quiet.")
    if any(caveats(report)):
        warnings.append("Not all was answered as asked for.")
    return " ".join(warnings)
