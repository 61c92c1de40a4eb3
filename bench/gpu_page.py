"""What `bench.gpu` measured, and the page that says so."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

ROWS = (1, 8, 32, 128, 256)
"""Sequences that decode together."""

_INTRODUCTION = (
    "`make gpu` runs the tests that need a GPU, measures, and writes this page; nothing here is "
    "written by hand."
)
_METHOD = (
    "Each figure is of the model runner alone, greedy, without the server. A step ends with what a "
    "server's sampler wants in the host's memory, and choosing there is not counted: logits, or of "
    "TensorRT the likeliest ids of each row, with all logits beside it to compare; PyTorch chooses "
    "on the GPU, as a loop of one's own does, and that is counted."
)
_SPEEDS = (
    "{workload.new_tokens} tokens of each sequence after {workload.prompt_tokens} of prompt, all "
    "sequences together, by the median step; in brackets how many times as many as {first.runtime}."
)
_STARTS = (
    "The first token is that of a prompt of {workload.ttft_tokens} tokens, nothing else running, "
    "the median of {workload.ttft_runs} runs. Memory is what the process takes of the GPU, {slots} "
    "slots included. Phases are of a fresh process."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """Where and with what it was measured.

    Attributes:
        date: `YYYY-MM-DD`.
        gpu: Its name, and its compute capability.
        driver: Its version.
        versions: Of packages, by name.
    """

    date: str
    gpu: str
    driver: str
    processor: str
    versions: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """What was run.

    Attributes:
        model: Shape and precision.
        prompt_tokens: Of each sequence before it decodes.
        new_tokens: Decoded of each sequence.
        ttft_tokens: Prompt tokens behind the time to first token.
        ttft_runs: How often that is measured.
        rows: Numbers of sequences that decode together.
    """

    model: str
    prompt_tokens: int
    new_tokens: int
    ttft_tokens: int
    ttft_runs: int
    rows: Sequence[int] = ROWS


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """One runtime's figures.

    Attributes:
        tokens_per_s: Of all sequences together, by their number.
        ttft_s: From the prompt to its first token, nothing else running; the median.
        memory_bytes: Of the GPU, taken by the process.
        cold_start_s: Seconds by phase, in order, in a fresh process.
    """

    runtime: str
    tokens_per_s: Mapping[int, float]
    ttft_s: float
    memory_bytes: int
    cold_start_s: Mapping[str, float]


def render(
    machine: Machine,
    workload: Workload,
    measurements: Sequence[Measurement],
    missing: Mapping[str, str],
) -> str:
    """The page, as Markdown.

    Args:
        machine: Where.
        workload: What.
        measurements: At least one; the first is what others are compared with.
        missing: Why a runtime could not be measured, by its name.
    """
    first = measurements[0]
    phases = list(dict.fromkeys(phase for m in measurements for phase in m.cold_start_s))
    speeds = [
        [m.runtime, *(_compare(m, first, rows) for rows in workload.rows)] for m in measurements
    ]
    others = [
        [
            m.runtime,
            f"{m.ttft_s * 1000:.1f} ms",
            f"{m.memory_bytes / 2**20:.0f} MiB",
            *(_seconds(m.cold_start_s.get(phase)) for phase in phases),
            _seconds(sum(m.cold_start_s.values())),
        ]
        for m in measurements
    ]
    versions = ", ".join(f"{name} {version}" for name, version in machine.versions.items())
    head = ["sequences", *map(str, workload.rows)]
    parts = [
        "# On a GPU",
        _INTRODUCTION,
        f"{machine.date}, {machine.gpu}, driver {machine.driver}, {machine.processor}. {versions}.",
        f"{workload.model}; every runtime has the same weights. {_METHOD}",
        "## Tokens per second",
        _SPEEDS.format(workload=workload, first=first),
        _table(head, speeds),
        "## First token, memory, cold start",
        _STARTS.format(workload=workload, slots=max(workload.rows)),
        _table(["runtime", "first token", "memory", *phases, "sum of phases"], others),
    ]
    if missing:
        parts += [
            "## Not measured",
            "\n".join(f"- {runtime}: {reason}" for runtime, reason in missing.items()),
        ]
    return "\n\n".join(parts) + "\n"


def _compare(measurement: Measurement, first: Measurement, rows: int) -> str:
    speed, reference = measurement.tokens_per_s.get(rows), first.tokens_per_s.get(rows)
    if speed is None:
        return "-"
    if measurement is first or reference is None:
        return f"{speed:,.0f}"
    return f"{speed:,.0f} ({speed / reference:.2f})"


def _seconds(duration_s: float | None) -> str:
    return "-" if duration_s is None else f"{duration_s:.2f} s"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
