"""The page that `make gpu` writes, from made-up figures; without a GPU it is not written."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from bench import gpu
from bench.gpu_page import ROWS, Machine, Measurement, Workload, render
from provider_core import Batch
from provider_core.testing import ScriptedRunner, prefill_batch

MACHINE = Machine(
    date="2026-01-02",
    gpu="Imaginary 9000 (compute capability 12.0)",
    driver="999.1",
    processor="x86_64",
    versions={"Python": "3.11.7", "torch": "9.9"},
)
WORKLOAD = Workload(
    model="tiny, fp16", prompt_tokens=128, new_tokens=64, ttft_tokens=512, ttft_runs=5
)
FIRST = Measurement(
    runtime="First",
    tokens_per_s=dict.fromkeys(ROWS, 1000.0),
    ttft_s=0.0123,
    memory_bytes=5 * 2**30,
    cold_start_s={"load": 1.5, "warm-up": 0.25},
)
SECOND = replace(
    FIRST,
    runtime="Second",
    tokens_per_s={**dict.fromkeys(ROWS, 2500.0), 8: 500.0},
    cold_start_s={"load": 3.0, "first prompt": 1.0},
)


def page(*measurements: Measurement, missing: dict[str, str] | None = None) -> list[str]:
    """The page's lines."""
    return render(MACHINE, WORKLOAD, measurements, missing or {}).splitlines()


def test_speeds_are_compared_with_the_first_runtime() -> None:
    """One line for each runtime, one column for each number of sequences."""
    lines = page(FIRST, SECOND)
    assert "| First | 1,000 | 1,000 | 1,000 | 1,000 | 1,000 |" in lines
    ratios = "| Second | 2,500 (2.50) | 500 (0.50) | 2,500 (2.50) | 2,500 (2.50) | 2,500 (2.50) |"
    assert ratios in lines


def test_a_speed_that_was_not_measured_is_left_open() -> None:
    """A runtime that has too few slots, say."""
    lines = page(replace(FIRST, tokens_per_s={1: 1000.0}))
    assert "| First | 1,000 | - | - | - | - |" in lines


def test_cold_starts_are_shown_by_phase() -> None:
    """Phases of all runtimes, and each one's sum."""
    lines = page(FIRST, SECOND)
    assert (
        "| runtime | first token | memory | load | warm-up | first prompt | sum of phases |"
        in lines
    )
    assert "| First | 12.3 ms | 5120 MiB | 1.50 s | 0.25 s | - | 1.75 s |" in lines
    assert "| Second | 12.3 ms | 5120 MiB | 3.00 s | - | 1.00 s | 4.00 s |" in lines


def test_the_page_says_where_when_and_with_what() -> None:
    """Nobody has to believe a figure without its machine."""
    text = "\n".join(page(FIRST))
    assert "the median of 5 runs" in text
    for fact in ("2026-01-02", "Imaginary 9000", "12.0", "999.1", "torch 9.9", "tiny, fp16"):
        assert fact in text


def test_what_is_missing_is_named_with_the_reason() -> None:
    """A runtime that is not installed is no runtime that lost."""
    assert "- TensorRT: it is not installed" in page(
        FIRST, missing={"TensorRT": "it is not installed"}
    )
    assert "## Not measured" not in page(FIRST)


class Clock:
    """`time`, which passes when it is told to."""

    now_s = 0.0

    def perf_counter(self) -> float:
        """The time."""
        return self.now_s


class TimedRunner(ScriptedRunner):
    """Its steps take 2 s, some of them 90, and choosing from its logits an hour."""

    clock: Clock
    num_steps = 0

    def execute_model(self, batch: Batch) -> Any:
        """Logits that take their time."""
        self.num_steps += 1
        self.clock.now_s += 90 if self.num_steps % 4 == 0 else 2
        logits = super().execute_model(batch)

        def argmax(axis: int) -> npt.NDArray[np.intp]:
            self.clock.now_s += 3600
            chosen: npt.NDArray[np.intp] = logits.argmax(axis=axis)
            return chosen

        return SimpleNamespace(argmax=argmax)


class ChoosingRunner(TimedRunner):
    """Chooses on its device, which takes another second."""

    def choose_greedily(self, batch: Batch) -> list[int]:
        """As a step of logits, and then the choice."""
        logits = ScriptedRunner.execute_model(self, batch)
        self.clock.now_s += 3
        return [int(token_id) for token_id in logits.argmax(axis=1)]


class CandidateTimedRunner(TimedRunner):
    """Brings candidates, which takes a second less than logits do."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.info = replace(self.info, max_candidates=4)

    def execute_candidates(self, batch: Batch, factors: Any, bitmasks: Any) -> Any:
        """The likeliest ids."""
        logits = ScriptedRunner.execute_model(self, batch)
        self.clock.now_s += 1
        return SimpleNamespace(token_ids=np.argsort(-logits, axis=1)[:, : len(factors) + 3])

    def fetch_logits(self, rows: Any) -> Any:
        """Nobody asks."""
        raise NotImplementedError


@pytest.mark.parametrize(
    ("kind", "step_s"), [(TimedRunner, 2), (ChoosingRunner, 3), (CandidateTimedRunner, 1)]
)
def test_a_step_is_timed_by_itself(
    monkeypatch: pytest.MonkeyPatch, kind: type[TimedRunner], step_s: int
) -> None:
    """Without the choice on the host; and the median, so that slow steps change nothing."""
    runner = kind(max_num_seqs=3, max_model_len=1024, vocab_size=64)
    runner.clock = Clock()
    monkeypatch.setattr(gpu, "time", runner.clock)
    workload = replace(gpu.ON_GPU.workload, rows=(3,))

    measured = gpu.measure("Timed", lambda: runner, lambda: 0, workload)

    assert measured.tokens_per_s == {3: 3 / step_s}
    assert measured.ttft_s == step_s


def test_candidates_are_compared_with_all_logits() -> None:
    """Of the same runner: what is hidden is not asked for."""
    runner = CandidateTimedRunner(max_num_seqs=3, max_model_len=64, vocab_size=64)
    runner.clock = Clock()
    batch = prefill_batch(0, [1, 2, 3])
    likeliest, _ = gpu.run_step(runner, batch)
    assert (runner.num_steps, runner.clock.now_s) == (0, 1)

    assert gpu.run_step(gpu.WholeLogits(runner), batch)[0] == likeliest

    assert runner.num_steps == 1


def test_any_runner_can_be_measured() -> None:
    """Each number of sequences, the phases of its start, and the memory it took."""
    used = iter([100, 350])
    measured = gpu.measure(
        "Scripted",
        lambda: ScriptedRunner(max_num_seqs=3, max_model_len=1024, vocab_size=64),
        lambda: next(used),
        replace(gpu.ON_GPU.workload, rows=(1, 3)),
    )
    assert measured.tokens_per_s.keys() == {1, 3}
    assert min(measured.tokens_per_s.values()) > 0
    assert list(measured.cold_start_s) == ["load", "warm-up", "first prompt"]
    assert measured.memory_bytes == 250


def test_without_a_gpu_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says so, and exits with an error."""
    written = tmp_path / "gpu-results.md"
    monkeypatch.setattr(gpu, "PAGE", written)
    monkeypatch.setattr(gpu, "find_capability", lambda: None)
    monkeypatch.setattr("sys.argv", ["bench.gpu"])
    with pytest.raises(SystemExit) as ended:
        gpu.main()
    assert "no GPU here" in str(ended.value.code)
    assert not written.exists()


def test_without_the_driver_s_tool_nothing_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Found out at the beginning: it says how much memory is taken."""
    monkeypatch.setattr(gpu, "PAGE", tmp_path / "gpu-results.md")
    monkeypatch.setattr(gpu, "find_capability", lambda: "9.0")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("sys.argv", ["bench.gpu"])
    with pytest.raises(SystemExit, match="nvidia-smi, which comes with the driver, is needed"):
        gpu.main()
    assert list(tmp_path.iterdir()) == []


def test_a_runtime_that_hangs_is_left_out(tmp_path: Path) -> None:
    """The page says so, and others are measured."""
    outcome = gpu.measure_alone("torch", tmp_path, timeout_s=0)
    assert outcome == "it took longer than 0 s"
