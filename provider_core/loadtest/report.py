"""The result of a sweep: points, their rounds, and what two servers' rounds compare to."""

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from provider_core.loadtest.machine import MachineUse
from provider_core.loadtest.summary import LATENCIES, PERCENTILES, Slo, Summary


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One setting of the load.

    Attributes:
        concurrency: Clients of a closed loop, `None` in an open one.
        rate: Requests per second of an open loop; `None` in a closed one, and for a trace's times.
        prompt_tokens: As it was asked for, such as `128` or `128±32`, or `trace`.
        output_tokens: The same.
    """

    concurrency: int | None = None
    rate: float | None = None
    prompt_tokens: str
    output_tokens: str

    @property
    def load(self) -> str:
        """How hard: `c=8`, `4/s` or `trace`."""
        if self.concurrency is not None:
            return f"c={self.concurrency}"
        return "trace" if self.rate is None else f"{self.rate:g}/s"

    def __str__(self) -> str:
        return f"{self.load}, {self.prompt_tokens} in, {self.output_tokens} out"


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """One server under one load, once.

    Attributes:
        target: The server's label.
        machine: What ran meanwhile; `None` if it cannot be known here.
        resident_bytes: Of the server's processes after the round; `None` if it is not known.
        generator_cpu_s: CPU time of this process during the round.
        timeline: Events with output per second, over equal parts of the wall time.
        is_whole: Whether it was not cut short by an interrupt.
    """

    target: str
    summary: Summary
    machine: MachineUse | None
    resident_bytes: int | None
    generator_cpu_s: float
    timeline: tuple[float, ...]
    is_whole: bool = True


@dataclass(slots=True)
class PointResult:
    """Rounds of one point, in the order in which they ran."""

    point: Point
    rounds: list[Round] = field(default_factory=list)

    def of(self, target: str) -> list[Round]:
        """A server's rounds; those cut short only if there is no other."""
        mine = [turn for turn in self.rounds if turn.target == target]
        return [turn for turn in mine if turn.is_whole] or mine


@dataclass(slots=True, kw_only=True)
class Report:
    """All that a sweep found.

    Attributes:
        targets: Label, URL, path, model and process of each server, the first one first.
        host: Processor, number of processors, system.
        settings: What the sweep was asked to do, for the reader of the report.
        max_noise: Above this many processors' worth of others' work a round is not quiet.
    """

    targets: Sequence[Mapping[str, str | int | None]]
    host: str
    started: str
    settings: Mapping[str, str | int | float | None]
    max_noise: float
    slo: Slo | None = None
    points: list[PointResult] = field(default_factory=list)
    is_interrupted: bool = False
    is_noise_allowed: bool = False

    @property
    def labels(self) -> list[str]:
        """The servers' labels."""
        return [str(target["label"]) for target in self.targets]

    def rounds(self) -> Iterator[Round]:
        """All rounds."""
        for result in self.points:
            yield from result.rounds

    @property
    def unanswered(self) -> list[str]:
        """Servers with the points at which not one of their requests was answered."""
        return [
            f"{label} at {result.point}"
            for result in self.points
            for label in self.labels
            if (rounds := result.of(label)) and not any(turn.summary.num_ok for turn in rounds)
        ]

    @property
    def is_quiet(self) -> bool | None:
        """Whether every round was quiet; `None` if nobody can know."""
        noise = [turn.machine.noise for turn in self.rounds() if turn.machine is not None]
        if not noise:
            return None
        return max(noise) <= self.max_noise

    @property
    def loudest(self) -> MachineUse | None:
        """The noisiest round's figures."""
        used = [turn.machine for turn in self.rounds() if turn.machine is not None]
        return max(used, key=lambda use: use.noise, default=None)

    @property
    def refusal(self) -> str | None:
        """Why the two servers must not be compared, `None` if they may be."""
        loudest = self.loudest
        if len(self.targets) < 2 or loudest is None or self.is_noise_allowed:
            return None
        if loudest.noise <= self.max_noise:
            return None
        return f"no comparison: {describe_noise(loudest, self.max_noise)}"


def describe_noise(use: MachineUse, max_noise: float) -> str:
    """How far a machine was from quiet, in one line."""
    busiest = f", most of all {use.busiest}" if use.busiest else ""
    return (
        f"the machine was not quiet: others used {use.others:.2f} and steal took {use.steal:.2f} "
        f"of a processor{busiest}; the limit is {max_noise:.2f}"
    )


def metrics(summary: Summary) -> dict[str, float | None]:
    """The figures of a round by name; latencies in milliseconds.

    A figure that the round cannot give (no answers, no rate, no SLO) is `None`.
    """
    figures: dict[str, float | None] = {
        "output_tokens_per_s": summary.output_tokens_per_s,
        "prompt_tokens_per_s": summary.prompt_tokens_per_s,
        "requests_per_s": summary.requests_per_s,
        "offered_per_s": summary.offered_per_s,
        "goodput_per_s": summary.goodput_per_s,
    }
    for name in LATENCIES:
        distribution = getattr(summary, name)
        for part in ("mean", *(f"p{p}" for p in PERCENTILES)):
            seconds = getattr(distribution, part)
            figures[f"{name}_{part}_ms"] = 1000 * seconds if distribution.count else None
    return figures


@dataclass(frozen=True, slots=True)
class Figure:
    """One metric over a server's rounds: the median, and the best of them."""

    median: float
    best: float


def figures(rounds: Sequence[Round]) -> dict[str, Figure]:
    """Every metric that each of the rounds has; more is better for rates, less for latencies."""
    each = [metrics(turn.summary) for turn in rounds]
    found: dict[str, Figure] = {}
    for name in each[0] if each else ():
        values = [value for of_round in each if (value := of_round[name]) is not None]
        if len(values) == len(each):
            best = max(values) if name.endswith("_per_s") else min(values)
            found[name] = Figure(statistics.median(values), best)
    return found


def ratios(result: PointResult, first: str, second: str) -> dict[str, Figure]:
    """The first server's medians and bests over the second's, where neither is 0.

    Rounds cut short are left out.
    """
    ours, theirs = (
        figures([turn for turn in result.of(label) if turn.is_whole]) for label in (first, second)
    )
    return {
        name: Figure(ours[name].median / theirs[name].median, ours[name].best / theirs[name].best)
        for name in ours.keys() & theirs.keys()
        if theirs[name].median and theirs[name].best
    }
