"""Model runners on a GPU: TensorRT, ONNX Runtime on CUDA, and a plain PyTorch loop.

`python -m bench.gpu` exports a published shape with random weights, builds an engine, measures each
runtime in a process of its own, and writes `docs/gpu-results.md`. Without a GPU it says so and
writes nothing. A runtime that is not installed is named on the page with the reason.

`python -m bench.gpu --rehearse PAGE` does the same on the host, with a small decoder, and writes
another page: whoever has a GPU for an hour wants no surprise in what surrounds it.
"""

import argparse
import datetime as dt
import json
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np

from bench.gpu_page import Machine, Measurement, Workload, render
from provider_core import Batch, CandidateRunner, ModelRunner, ModelSpec, ProviderError
from provider_core.testing import decode_batch, prefill_batch, prefill_batches
from provider_export.export import export_decoder
from provider_export.random_source import RandomShape, RandomWeights
from provider_tensorrt.library import find_capability

PAGE = Path(__file__).parents[1] / "docs/gpu-results.md"
PRECISION: Literal["fp16"] = "fp16"
CHUNK = 512  # prompt tokens in one call
NEW_SHAPE_STEPS = 3  # of a shape that is new: bound, then captured, then replayed
TIMEOUT_S = 300  # of one runtime
RUNTIMES = ("onnxruntime", "tensorrt", "tensorrt_logits", "torch")
NAMES = {
    "onnxruntime": "ONNX Runtime, CUDA",
    "tensorrt": "TensorRT",
    "tensorrt_logits": "TensorRT, all logits brought",
    "torch": "PyTorch, plain loop",
}
PACKAGES = (
    "onnxruntime-gpu",
    "tensorrt",
    "tensorrt-rtx-cu13-bindings",
    "torch",
    "cuda-bindings",
    "numpy",
)


class SmallShape(RandomShape):
    """Of the same family as a published shape, and as small as its tokenizer can be."""

    @property
    def config(self) -> dict[str, Any]:
        """What goes into config.json."""
        vocabulary = {"vocab_size": 9300, "bos_token_id": 9200, "eos_token_id": 9200}
        sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2}
        return super().config | vocabulary | sizes | {"num_attention_heads": 4}


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """What is measured, and where.

    Attributes:
        max_model_len: Positions of each slot.
        options: Of the models, by runtime.
        torch_device: PyTorch's name of it.
        capabilities: Of the GPUs that engines are built for; none means the one that is here.
    """

    shape: RandomShape
    workload: Workload
    max_model_len: int
    options: Mapping[str, Mapping[str, object]]
    torch_device: str
    capabilities: Sequence[str] = ()


ON_GPU = Setup(
    shape=RandomShape("qwen2.5-0.5b"),
    workload=Workload(
        model=f"qwen2.5-0.5b, weights and activations in {PRECISION}",
        prompt_tokens=128,
        new_tokens=64,
        ttft_tokens=512,
        ttft_runs=5,
    ),
    max_model_len=1024,
    options={"onnxruntime": {"provider": "cuda"}, "tensorrt": {}},
    torch_device="cuda:0",
)
REHEARSAL = Setup(
    shape=SmallShape("qwen2.5-0.5b"),
    workload=Workload(
        model="a rehearsal on the host, with two small layers: no figure here means anything",
        prompt_tokens=12,
        new_tokens=4,
        ttft_tokens=40,
        ttft_runs=2,
        rows=(1, 3),
    ),
    max_model_len=64,
    options={"onnxruntime": {}, "tensorrt": {"device": "host"}},
    torch_device="cpu",
    capabilities=("8.9",),
)


@runtime_checkable
class ChoosesOnDevice(Protocol):
    """A runner that needs no logits on the host to go on greedily."""

    def choose_greedily(self, batch: Batch) -> list[int]:
        """Compute one step; the likeliest next id of each row."""
        ...


class WholeLogits:
    """A runner that is asked for whole logits, whatever else it offers."""

    def __init__(self, runner: ModelRunner) -> None:
        self.info = replace(runner.info, max_candidates=0)
        self.warm_up, self.close = runner.warm_up, runner.close
        self.execute_model, self.move_slot = runner.execute_model, runner.move_slot


def load(runtime: str, folder: Path, setup: Setup) -> ModelRunner:
    """A runner, as the server would load it."""
    max_num_seqs = max(setup.workload.rows)
    if runtime == "torch":
        import torch  # noqa: PLC0415 - may be missing

        from bench.torch_runner import TorchRunner  # noqa: PLC0415

        config = setup.shape.config
        weights = RandomWeights(is_tied=config["tie_word_embeddings"], has_qkv_bias=True)
        return TorchRunner(
            config,
            weights,
            device=setup.torch_device,
            dtype=torch.float16,
            max_num_seqs=max_num_seqs,
            max_model_len=setup.max_model_len,
        )
    plugin: Any  # a module with the hook
    is_tensorrt = runtime != "onnxruntime"
    if is_tensorrt:
        import provider_tensorrt as plugin  # noqa: PLC0415 - what is imported is measured
    else:
        import provider_onnxruntime as plugin  # noqa: PLC0415
    spec = ModelSpec(
        id="bench",
        source=str(folder),
        backend=plugin.NAME,
        max_num_seqs=max_num_seqs,
        max_model_len=setup.max_model_len,
        prefix_cache_mib=0,  # of which not every runtime has one
        options=dict(setup.options[plugin.NAME]),
    )
    further = {"report": print} if is_tensorrt else {}
    runner: ModelRunner = plugin.load_model(spec, folder, **further)
    return WholeLogits(runner) if runtime == "tensorrt_logits" else runner


def measure(
    name: str,
    load_runner: Callable[[], ModelRunner],
    used: Callable[[], int],
    workload: Workload = ON_GPU.workload,
) -> Measurement:
    """Run the workload.

    Args:
        name: Of the runtime.
        load_runner: Makes the runner.
        used: Bytes of the GPU's memory that are taken now, by anybody.
        workload: What to run.
    """
    before = used()
    marks = [time.perf_counter()]
    runner = load_runner()
    marks.append(time.perf_counter())
    runner.warm_up()
    marks.append(time.perf_counter())
    runner.execute_model(prefill_batch(0, make_prompt(runner, workload.prompt_tokens)))
    marks.append(time.perf_counter())
    phases = [end - start for start, end in pairwise(marks)]
    speeds = {rows: decode_speed(runner, rows, workload) for rows in workload.rows}
    ttft_s = median(first_token_s(runner, workload.ttft_tokens) for _ in range(workload.ttft_runs))
    memory_bytes = used() - before
    runner.close()
    return Measurement(
        runtime=name,
        tokens_per_s=speeds,
        ttft_s=ttft_s,
        memory_bytes=memory_bytes,
        cold_start_s=dict(zip(("load", "warm-up", "first prompt"), phases, strict=True)),
    )


def decode_speed(runner: ModelRunner, num_rows: int, workload: Workload) -> float:
    """Tokens per second of `num_rows` sequences together, by the median step."""
    prompt = make_prompt(runner, workload.prompt_tokens)
    ids = [run_step(runner, prefill_batch(slot, prompt))[0][0] for slot in range(num_rows)]
    steps_s = []
    for length in range(len(prompt), len(prompt) + NEW_SHAPE_STEPS + workload.new_tokens):
        ids, step_s = run_step(runner, decode_batch(ids, [length] * num_rows))
        steps_s.append(step_s)
    return num_rows / median(steps_s[NEW_SHAPE_STEPS:])


def first_token_s(runner: ModelRunner, num_tokens: int) -> float:
    """Seconds that the steps of a prompt take together."""
    prompt = make_prompt(runner, num_tokens)
    return sum(run_step(runner, batch)[1] for batch in prefill_batches(0, prompt, chunk=CHUNK))


def run_step(runner: ModelRunner, batch: Batch) -> tuple[list[int], float]:
    """One step: the likeliest next id of each row, and the seconds that it took.

    A step ends with logits in the host's memory, or with the candidates of a runner that has some.
    What it takes to choose there is not counted: with 256 rows of logits it is longer than the
    step. A runner that chooses on its device is timed with that.
    """
    started_s = time.perf_counter()
    if isinstance(runner, CandidateRunner) and runner.info.max_candidates and batch.num_logits:
        factors = np.ones(len(batch.slots), np.float32)
        token_ids = runner.execute_candidates(batch, factors, {}).token_ids
        return token_ids[:, 0].tolist(), time.perf_counter() - started_s
    if isinstance(runner, ChoosesOnDevice) and batch.num_logits:
        return runner.choose_greedily(batch), time.perf_counter() - started_s
    logits = runner.execute_model(batch)
    step_s = time.perf_counter() - started_s
    return logits.argmax(axis=1).tolist(), step_s


def make_prompt(runner: ModelRunner, length: int) -> list[int]:
    """The same ids each time."""
    ids: list[int] = (np.arange(length) * 7919 % runner.info.vocab_size).tolist()
    return ids


def build_engine(folder: Path, setup: Setup) -> None:
    """Build the engine that TensorRT is measured with; not part of a start."""
    from provider_tensorrt.building import build_engines  # noqa: PLC0415 - may be missing
    from provider_tensorrt.library import find_library  # noqa: PLC0415

    build_engines(
        folder,
        find_library(),
        max_num_seqs=max(setup.workload.rows),
        max_prefill_tokens=CHUNK,
        max_model_len=setup.max_model_len,
        compute_capabilities=setup.capabilities,
    )


def measure_alone(
    runtime: str, folder: Path, further: Sequence[str] = (), timeout_s: float = TIMEOUT_S
) -> Measurement | str:
    """Measure in a process of its own, with further arguments; why it could not be done, else."""
    command = [sys.executable, "-m", "bench.gpu", "--runtime", runtime, "--folder", str(folder)]
    try:
        run = subprocess.run(
            [*command, *further], capture_output=True, text=True, check=False, timeout=timeout_s
        )
    except subprocess.TimeoutExpired:
        return f"it took longer than {timeout_s} s"
    if run.returncode != 0:
        sys.stderr.write(run.stderr)  # all of it helps whoever is at the machine
        lines = run.stderr.strip().splitlines()
        return lines[-1] if lines else f"exit status {run.returncode}"
    found = [line for line in run.stdout.splitlines() if line.startswith("{")]
    fields = json.loads(found[-1])  # runtimes write lines of their own, at their end, too
    fields["tokens_per_s"] = {int(rows): speed for rows, speed in fields["tokens_per_s"].items()}
    return Measurement(**fields)


def used_memory() -> int:
    """Bytes of the first GPU's memory that are taken, as its driver's tool says."""
    return int(_query_gpu("memory.used")) * 2**20


def used_host_memory() -> int:
    """Bytes of memory that this process has."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def describe_machine(gpu: str, driver: str) -> Machine:
    """What the page says of the machine."""
    versions: dict[str, str] = {"Python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return Machine(
        date=dt.datetime.now(dt.UTC).date().isoformat(),
        gpu=gpu,
        driver=driver,
        processor=platform.machine(),
        versions=versions,
    )


def _query_gpu(field: str) -> str:
    command = ["nvidia-smi", "--id=0", f"--query-gpu={field}", "--format=csv,noheader,nounits"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def measure_all(
    setup: Setup, further: Sequence[str] = ()
) -> tuple[list[Measurement], Mapping[str, str]]:
    """Every runtime that is there, and why the others are not."""
    measurements, missing = [], {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "model"
        export_decoder(
            setup.shape, folder, target="tensorrt", precision=PRECISION, activations=PRECISION
        )
        for runtime in RUNTIMES:
            print(f"measuring {NAMES[runtime]}", flush=True)
            try:
                if runtime == "tensorrt":
                    build_engine(folder, setup)
            except (ImportError, ProviderError) as error:
                missing[NAMES[runtime]] = str(error)
                continue
            outcome = measure_alone(runtime, folder, further)
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
    parser.add_argument("--rehearse", type=Path, metavar="PAGE")
    arguments = parser.parse_args()
    page, rehearses = arguments.rehearse or PAGE, arguments.rehearse is not None
    setup = REHEARSAL if rehearses else ON_GPU
    if arguments.runtime is not None:
        found = measure(
            NAMES[arguments.runtime],
            lambda: load(arguments.runtime, arguments.folder, setup),
            used_host_memory if rehearses else used_memory,
            setup.workload,
        )
        print(json.dumps(asdict(found)))
        return
    machine = describe_machine("no GPU", "none") if rehearses else _describe_gpu()
    further = ["--rehearse", str(page)] if rehearses else []
    measurements, missing = measure_all(setup, further)
    if not measurements:
        reasons = "; ".join(f"{runtime}: {reason}" for runtime, reason in missing.items())
        sys.exit(f"no runtime could be measured: {reasons}")
    page.write_text(render(machine, setup.workload, measurements, missing), encoding="utf-8")
    print(f"{page} written")


def _describe_gpu() -> Machine:
    """The machine, or the end of the process if it has no GPU."""
    capability = find_capability()
    if capability is None:
        sys.exit(f"no GPU here: nothing is measured, and {PAGE.name} stays as it is")
    try:
        name, driver = _query_gpu("name"), _query_gpu("driver_version")
    except (OSError, subprocess.CalledProcessError) as error:
        sys.exit(f"nvidia-smi, which comes with the driver, is needed: {error}")
    return describe_machine(f"{name} (compute capability {capability})", driver)


if __name__ == "__main__":
    main()
