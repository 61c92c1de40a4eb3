"""What makes figures mislead on a machine that was quiet: other answers than were asked for."""

from collections.abc import Iterator, Sequence

from provider_core.loadtest.report import Point, PointResult, Report, Round
from provider_core.loadtest.workload import Length

TOLERANCE = 0.05
"""Of a mean length: some servers count the token that ends a text, and some do not."""


def tokens_per_answer(rounds: Sequence[Round]) -> float | None:
    """Mean output tokens of whole answers, `None` without one."""
    num_ok = sum(turn.summary.num_ok for turn in rounds)
    return sum(turn.summary.output_tokens for turn in rounds) / num_ok if num_ok else None


def caveats(report: Report) -> Iterator[str]:
    """A line for each point and server whose figures are of other work than the reader thinks.

    A server that ends its answers early is quick at each of them; one that fails some has fewer to
    serve at once.
    """
    must_go_on = bool(report.settings.get("ignore_eos"))
    for result in report.points:
        found = {label: tokens_per_answer(result.of(label)) for label in report.labels}
        means = {label: mean for label, mean in found.items() if mean is not None}
        for label, mean in means.items():
            if not _is_as_asked(mean, result.point, must_go_on=must_go_on):
                yield (
                    f"{label} at {result.point}: its answers had {mean:.1f} tokens, not the "
                    f"{result.point.output_tokens} asked for"
                )
        if len(means) == 2:
            yield from _differences(result, means)


def _is_as_asked(mean: float, point: Point, *, must_go_on: bool) -> bool:
    """Whether answers can be of the lengths asked for; a text may end of itself unless told not to.

    A trace asks for a length in each line, of which no mean is known.
    """
    if point.output_tokens == "trace":
        return True
    asked = Length.parse(point.output_tokens)
    least = (asked.mean - asked.spread) * (1 - TOLERANCE) if must_go_on else 0
    return least <= mean <= (asked.mean + asked.spread) * (1 + TOLERANCE)


def _differences(result: PointResult, means: dict[str, float]) -> Iterator[str]:
    """What two servers did not do alike."""
    if min(means.values()) < max(means.values()) * (1 - TOLERANCE):
        lengths = " and ".join(f"{label} gave {mean:.1f} tokens" for label, mean in means.items())
        yield f"answers at {result.point} are not alike: {lengths}"
    for label in means:
        summaries = [turn.summary for turn in result.of(label)]
        num_requests = sum(summary.num_requests for summary in summaries)
        num_failed = num_requests - sum(summary.num_ok for summary in summaries)
        if num_failed:
            yield (
                f"{label} at {result.point}: {num_failed} of {num_requests} requests failed, which "
                "left it less to do"
            )
