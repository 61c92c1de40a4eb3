"""Settings of this backend: `PROVIDER_ONNXRUNTIME_*`, or one model's `options` over them."""

import os
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

CPU_QUOTA_FILE = Path("/sys/fs/cgroup/cpu.max")  # cgroup v2: "<microseconds or max> <period>"
SIBLINGS_FILE = "/sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"


def count_usable_cores(quota_file: Path = CPU_QUOTA_FILE) -> int:
    """Physical cores that this process may keep busy, at least 1.

    Counted are the cores it may run on, hyper-threads once; a container's CPU quota cuts them
    down, because threads beyond it are stopped in the middle of a step.
    """
    cores = _count_physical_cores()
    try:
        quota, period = quota_file.read_text().split()
        return max(1, min(cores, int(quota) // int(period)))
    except (OSError, ValueError):  # no cgroup v2 here, or no limit
        return cores


def _count_physical_cores() -> int:
    try:
        usable = os.sched_getaffinity(0)
    except AttributeError:  # macOS, Windows
        return os.cpu_count() or 1
    cores = set()
    for cpu in usable:
        try:
            cores.add(Path(SIBLINGS_FILE.format(cpu)).read_text())
        except OSError:
            return len(usable)
    return len(cores)


def _read_number(value: object) -> object:
    return int(value) if isinstance(value, str) and value.isdecimal() else value


def _split_numbers(value: object) -> object:
    """Text into what stands between its commas, `[` and `]` left out; anything else as it is."""
    if not isinstance(value, str):
        return value
    parts = value.strip().removeprefix("[").removesuffix("]").split(",")
    return [part.strip() for part in parts if part.strip()]


Pooling = Literal["cls", "mean", "max", "mean_sqrt_len", "weightedmean", "lasttoken"]
"""How an encoder's vectors of tokens become one, by Sentence Transformers' names."""

BlockSize = Annotated[Literal[32, 128], BeforeValidator(_read_number)]
"""A literal compares without converting, and the environment holds strings only."""


class OnnxRuntimeSettings(BaseSettings):
    """How sessions run."""

    model_config = SettingsConfigDict(
        env_prefix="PROVIDER_ONNXRUNTIME_", env_ignore_empty=True, extra="forbid", frozen=True
    )

    provider: Literal["cpu", "cuda", "tensorrt_rtx"] = Field(
        "cpu", description="Where the model runs; `tensorrt_rtx` is a GPU by TensorRT for RTX."
    )
    model_file: str | None = Field(
        None, description="The decoder in the model's folder, e.g. `onnx/model_q4.onnx`."
    )
    device_id: int = Field(0, ge=0, description="Which GPU.")
    cuda_graphs: Literal["auto", "on", "off"] = Field(
        "auto",
        description="Replay decodes as CUDA graphs; `auto` where the model allows it, `on` refuses "
        "any other.",
    )
    intra_op_num_threads: int = Field(
        default_factory=count_usable_cores,
        ge=1,
        description="Threads of one step; default: physical cores this process may use.",
    )
    spin_duration_us: int = Field(
        200, ge=0, description="Idle threads spin so long before they sleep; 0 never spins."
    )
    flash_attention: bool | None = Field(
        None,
        description="Attend in tiles, in little memory; default: where slots hold more than "
        "16,384 positions. Whole rows are twice as fast up to about 1,000.",
    )
    cache: bool | None = Field(
        None,
        description="Keep the graph as this machine runs it on disk, for quick starts; default: of "
        "models of 64 MiB and more. With `tensorrt_rtx`, the kernels that it compiled; default: of "
        "all models.",
    )
    cache_dir: Path | None = Field(
        None, description="Where; default: `.provider-cache` in the model's folder."
    )
    verify_cache: bool = Field(
        default=True,
        description="Compare every byte of what is kept while it is loaded, not 64 pages only.",
    )
    int4_block_size: BlockSize = Field(
        128, description="Weights that share a scale, where int4 is derived: 32 is slower, finer."
    )
    hybrid_max_int4_rows: int = Field(
        4, ge=0, description="With precision hybrid, up to so many rows are decoded in int4."
    )
    pooling: Pooling | None = Field(
        None, description="How an encoder's tokens become one vector; default: as its folder says."
    )
    normalize: bool | None = Field(
        None, description="Bring an encoder's vectors to length 1; default: as its folder says."
    )
    matryoshka_dimensions: Annotated[
        tuple[int, ...] | None, NoDecode, BeforeValidator(_split_numbers)
    ] = Field(
        None,
        description="Sizes to which an encoder's vectors may be cut, comma-separated; default: as "
        "its folder says.",
    )
