"""Reports with figures that a test chooses."""

from provider_core.loadtest.machine import MachineUse
from provider_core.loadtest.replies import Reply
from provider_core.loadtest.report import Point, PointResult, Report, Round
from provider_core.loadtest.summary import Slo, summarise

QUIET = MachineUse(generator=0.05, server=1.9, others=0.02, steal=0.01)
NOISY = MachineUse(
    generator=0.05, server=1.5, others=0.4, steal=0.2, busiest="cc1plus (pid 7) 0.39"
)


def made_round(
    target: str = "A",
    *,
    ttft_s: float = 0.5,
    gap_s: float = 0.1,
    num_tokens: int = 11,
    machine: MachineUse | None = QUIET,
    is_whole: bool = True,
    slo: Slo | None = None,
    sending: tuple[float, float] | None = None,
) -> Round:
    """One answer of so many tokens, one event each; it ends with its last token."""
    arrivals = [ttft_s + index * gap_s for index in range(num_tokens)]
    reply = Reply(arrivals_s=arrivals, ended_s=arrivals[-1], output_tokens=num_tokens)
    return Round(
        target=target,
        summary=summarise([reply], slo, sending=sending),
        machine=machine,
        resident_bytes=250_000_000,
        generator_cpu_s=0.0001,
        timeline=(1.0, 2.0, 0.0),
        is_whole=is_whole,
    )


def made_report(
    *results: PointResult, labels: tuple[str, ...] = ("A",), slo: Slo | None = None
) -> Report:
    """A report of these points."""
    targets: list[dict[str, str | int | None]] = [
        {"label": label, "url": "http://h:1", "path": "/v1/completions", "model": "m", "pid": 9}
        for label in labels
    ]
    return Report(
        targets=targets,
        host="a machine",
        started="2026-01-01T00:00:00+00:00",
        settings={"rounds": 1, "slo": None},
        max_noise=0.1,
        slo=slo,
        points=list(results),
    )


def made_point(
    *rounds: Round,
    concurrency: int | None = 1,
    rate: float | None = None,
    prompt_tokens: str = "128",
    output_tokens: str = "64",
) -> PointResult:
    """Rounds under one load."""
    point = Point(
        concurrency=concurrency,
        rate=rate,
        prompt_tokens=prompt_tokens,
        output_tokens=output_tokens,
    )
    return PointResult(point, list(rounds))
