"""Model runners on a GPU: TensorRT, ONNX Runtime on CUDA, and a plain PyTorch loop.

`python -m bench.gpu` exports a published shape with random weights, builds an engine, measures each
runtime in a process of its own, and writes `docs/gpu-results.md`. Without a GPU it says so and
writes nothing. A runtime that is not installed is named on the page with the reason.
"""

import argparse
import datetime as dt
import json
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np

from bench.gpu_page import ROWS, Machine, Measurement, Workload, render
from provider_core import Batch, ModelRunner, ModelSpec, ProviderError
from provider_core.testing import decode_batch, prefill_batch, prefill_batches
from provider_export.export import export_decoder
from provider_export.random_source import RandomShape, RandomWeights
from provider_tensorrt.library import find_capability

PAGE = Path(__file__).parents[1] / "docs/gpu-results.md"
SHAPE = RandomShape("qwen2.5-0.5b")
PRECISION: Literal["fp16"] = "fp16"
MAX_MODEL_LEN = 1024
WORKLOAD = Workload(
    model=f"{SHAPE.name}, weights and activations in {PRECISION}",
    prompt_tokens=128,
    new_tokens=64,
    ttft_tokens=512,
    ttft_runs=5,
)
CHUNK = 512  # prompt tokens in one call
NEW_SHAPE_STEPS = 3  # of a shape that is new: bound, then captured, then replayed
RUNTIMES = ("onnxruntime", "tensorrt", "torch")
NAMES = {
    "onnxruntime": "ONNX Runtime, CUDA",
    "tensorrt": "TensorRT",
    "torch": "PyTorch, plain loop",
}
PACKAGES = ("onnxruntime-gpu", "tensorrt", "tensorrt-rtx", "torch", "cuda-bindings", "numpy")


@runtime_checkable
class ChoosesOnDevice(Protocol):
    """A runner that needs no logits on the host to go on greedily."""

    def choose_greedily(self, batch: Batch) -> list[int]:
        """Compute one step; the likeliest next id of each row."""
        ...


def load(runtime: str, folder: Path) -> ModelRunner:
    """A runner on the first GPU, as the server would load it."""
    if runtime == "torch":
        import torch  # noqa: PLC0415 - may be missing

        from bench.torch_runner import TorchRunner  # noqa: PLC0415

        config = SHAPE.config
        weights = RandomWeights(is_tied=config["tie_word_embeddings"], has_qkv_bias=True)
        return TorchRunner(
            config,
            weights,
            device="cuda:0",
            dtype=torch.float16,
            max_num_seqs=max(ROWS),
            max_model_len=MAX_MODEL_LEN,
        )
    plugin: Any  # a module with the hook
    if runtime == "tensorrt":
        import provider_tensorrt as plugin  # noqa: PLC0415 - what is imported is measured
    else:
        import provider_onnxruntime as plugin  # noqa: PLC0415
    spec = ModelSpec(
        id="bench",
        source=str(folder),
        backend=runtime,
        max_num_seqs=max(ROWS),
        max_model_len=MAX_MODEL_LEN,
        options={"provider": "cuda"} if runtime == "onnxruntime" else {},
    )
    further = {"report": print} if runtime == "tensorrt" else {}
    runner: ModelRunner = plugin.load_model(spec, folder, **further)
    return runner


def measure(
    name: str, load_runner: Callable[[], ModelRunner], used: Callable[[], int]
) -> Measurement:
    """Run the workload.

    Args:
        name: Of the runtime.
        load_runner: Makes the runner.
        used: Bytes of the GPU's memory that are taken now, by anybody.
    """
    before = used()
    marks = [time.perf_counter()]
    runner = load_runner()
    marks.append(time.perf_counter())
    runner.warm_up()
    marks.append(time.perf_counter())
    runner.execute_model(prefill_batch(0, make_prompt(runner, WORKLOAD.prompt_tokens)))
    marks.append(time.perf_counter())
    phases = [end - start for start, end in pairwise(marks)]
    speeds = {rows: decode_speed(runner, rows) for rows in ROWS}
    ttft_s = median(first_token_s(runner) for _ in range(WORKLOAD.ttft_runs))
    memory_bytes = used() - before
    runner.close()
    return Measurement(
        runtime=name,
        tokens_per_s=speeds,
        ttft_s=ttft_s,
        memory_bytes=memory_bytes,
        cold_start_s=dict(zip(("load", "warm-up", "first prompt"), phases, strict=True)),
    )


def decode_speed(runner: ModelRunner, num_rows: int) -> float:
    """Tokens per second of `num_rows` sequences together, by the median step."""
    prompt = make_prompt(runner, WORKLOAD.prompt_tokens)
    ids = [run_step(runner, prefill_batch(slot, prompt))[0][0] for slot in range(num_rows)]
    steps_s = []
    for length in range(len(prompt), len(prompt) + NEW_SHAPE_STEPS + WORKLOAD.new_tokens):
        ids, step_s = run_step(runner, decode_batch(ids, [length] * num_rows))
        steps_s.append(step_s)
    return num_rows / median(steps_s[NEW_SHAPE_STEPS:])


def first_token_s(runner: ModelRunner) -> float:
    """Seconds that the steps of a prompt take together."""
    prompt = make_prompt(runner, WORKLOAD.ttft_tokens)
    return sum(run_step(runner, batch)[1] for batch in prefill_batches(0, prompt, chunk=CHUNK))


def run_step(runner: ModelRunner, batch: Batch) -> tuple[list[int], float]:
    """One step: the likeliest next id of each row, and the seconds that it took.

    A step ends with logits in the host's memory. What it takes to choose there is not counted: with
    256 rows it is longer than the step. A runner that chooses on its device is timed with that.
    """
    started_s = time.perf_counter()
    if isinstance(runner, ChoosesOnDevice) and batch.num_logits:
        return runner.choose_greedily(batch), time.perf_counter() - started_s
    logits = runner.execute_model(batch)
    step_s = time.perf_counter() - started_s
    return logits.argmax(axis=1).tolist(), step_s


def make_prompt(runner: ModelRunner, length: int) -> list[int]:
    """The same ids each time."""
    ids: list[int] = (np.arange(length) * 7919 % runner.info.vocab_size).tolist()
    return ids


def build_engine(folder: Path) -> None:
    """Build the engine that TensorRT is measured with; not part of a start."""
    from provider_tensorrt.building import build_engines  # noqa: PLC0415 - may be missing
    from provider_tensorrt.library import find_library  # noqa: PLC0415

    build_engines(
        folder,
        find_library(),
        max_num_seqs=max(ROWS),
        max_prefill_tokens=CHUNK,
        max_model_len=MAX_MODEL_LEN,
    )


def measure_alone(runtime: str, folder: Path) -> Measurement | str:
    """Measure in a process of its own; why it could not be done, otherwise."""
    command = [sys.executable, "-m", "bench.gpu", "--runtime", runtime, "--folder", str(folder)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    if run.returncode != 0:
        lines = run.stderr.strip().splitlines()
        return lines[-1] if lines else f"exit status {run.returncode}"
    fields = json.loads(run.stdout.splitlines()[-1])
    fields["tokens_per_s"] = {int(rows): speed for rows, speed in fields["tokens_per_s"].items()}
    return Measurement(**fields)


def used_memory() -> int:
    """Bytes of the first GPU's memory that are taken, as its driver's tool says."""
    return int(_query_gpu("memory.used")) * 2**20


def describe_machine(capability: str) -> Machine:
    """What the page says of the machine."""
    versions: dict[str, str] = {"Python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return Machine(
        date=dt.datetime.now(dt.UTC).date().isoformat(),
        gpu=f"{_query_gpu('name')} (compute capability {capability})",
        driver=_query_gpu("driver_version"),
        processor=platform.machine(),
        versions=versions,
    )


def _query_gpu(field: str) -> str:
    command = ["nvidia-smi", "--id=0", f"--query-gpu={field}", "--format=csv,noheader,nounits"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def measure_all() -> tuple[list[Measurement], Mapping[str, str]]:
    """Every runtime that is there, and why the others are not."""
    measurements, missing = [], {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "model"
        export_decoder(SHAPE, folder, target="tensorrt", precision=PRECISION, activations=PRECISION)
        for runtime in RUNTIMES:
            print(f"measuring {NAMES[runtime]}", flush=True)
            try:
                if runtime == "tensorrt":
                    build_engine(folder)
            except (ImportError, ProviderError) as error:
                missing[NAMES[runtime]] = str(error)
                continue
            outcome = measure_alone(runtime, folder)
            if isinstance(outcome, str):
                missing[NAMES[runtime]] = outcome
            else:
                measurements.append(outcome)
    return measurements, missing


def main() -> None:
    """Measure everything and write the page; or one runtime, for the process that asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runtime", choices=RUNTIMES)
    parser.add_argument("--folder", type=Path)
    arguments = parser.parse_args()
    if arguments.runtime is not None:
        found = measure(
            NAMES[arguments.runtime],
            lambda: load(arguments.runtime, arguments.folder),
            used_memory,
        )
        print(json.dumps(asdict(found)))
        return
    capability = find_capability()
    if capability is None:
        sys.exit(f"no GPU here: nothing is measured, and {PAGE.name} stays as it is")
    measurements, missing = measure_all()
    if not measurements:
        reasons = "; ".join(f"{runtime}: {reason}" for runtime, reason in missing.items())
        sys.exit(f"no runtime could be measured: {reasons}")
    page = render(describe_machine(capability), WORKLOAD, measurements, missing)
    PAGE.write_text(page, encoding="utf-8")
    print(f"{PAGE} written")


if __name__ == "__main__":
    main()
