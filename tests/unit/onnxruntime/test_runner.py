"""What the backend promises beside the right tokens: providers, memory, settings."""

import os
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from provider_core import ConfigurationError, ModelSpec
from provider_core.decoder_io import CacheTensor
from provider_core.plugin_settings import read_backend_settings
from provider_export.export import export_decoder
from provider_onnxruntime import load_model, session
from provider_onnxruntime.kv_pool import HostKvPool
from provider_onnxruntime.settings import OnnxRuntimeSettings, count_usable_cores
from tests.tiny_checkpoints import write_checkpoint


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny decoder."""
    folder = write_checkpoint(tmp_path_factory.mktemp("model"))
    export_decoder(folder, folder)
    return folder


def spec(**fields: Any) -> ModelSpec:
    """A model of two slots."""
    return ModelSpec(id="m", source="", max_num_seqs=2, max_model_len=32, **fields)


def resident_bytes() -> int:
    """Memory of this process that is really there."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def test_info_says_what_runs_and_where(folder: Path) -> None:
    """The runtime's version, the device, and the limits that were asked for."""
    runner = load_model(spec(), folder)
    assert runner is not None
    info = runner.info
    assert (info.backend, info.backend_version) == ("onnxruntime", ort.__version__)
    assert (info.device, info.precision, info.vocab_size) == ("cpu", "fp32", 96)
    assert (info.max_num_seqs, info.max_model_len) == (2, 32)


@pytest.mark.parametrize(
    ("max_model_len", "options", "is_disabled"),
    [
        (32, {}, True),
        (16_384, {}, True),
        (16_385, {}, False),
        (32, {"flash_attention": True}, False),
        (16_385, {"flash_attention": False}, True),
    ],
)
def test_attention_in_tiles_is_for_long_slots(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    max_model_len: int,
    options: dict[str, object],
    *,
    is_disabled: bool,
) -> None:
    """The runtime's variable is set while the session is made, and not a moment longer."""
    seen: list[str | None] = []
    make = ort.InferenceSession

    def spy(*arguments: object, **named: object) -> ort.InferenceSession:
        seen.append(os.environ.get(session.NO_FLASH_ATTENTION))  # noqa: TID251
        return make(*arguments, **named)

    monkeypatch.setattr(ort, "InferenceSession", spy)
    monkeypatch.setenv(session.NO_FLASH_ATTENTION, "0")
    long = replace(spec(options=options), max_model_len=max_model_len)
    runner = load_model(long, folder)
    assert runner is not None
    runner.close()
    assert seen == ["1" if is_disabled else "0"]
    assert os.environ[session.NO_FLASH_ATTENTION] == "0"  # noqa: TID251


def test_a_provider_that_is_not_installed_is_an_error(folder: Path) -> None:
    """CUDA asked of a runtime without it: no silent CPU."""
    assert "CUDAExecutionProvider" not in ort.get_available_providers()
    with pytest.raises(ConfigurationError, match=r"no CUDAExecutionProvider.*onnxruntime-gpu"):
        load_model(spec(options={"provider": "cuda"}), folder)


def test_a_session_that_fell_back_is_an_error(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """onnxruntime-gpu without a GPU lists CUDA and returns a session on the CPU."""

    def fall_back(path: str, options: ort.SessionOptions, **_: Any) -> ort.InferenceSession:
        return real_session(path, options, providers=["CPUExecutionProvider"])

    real_session = ort.InferenceSession
    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    monkeypatch.setattr(ort, "InferenceSession", fall_back)
    with pytest.raises(ConfigurationError, match="asked for and the session runs on CPU"):
        load_model(spec(options={"provider": "cuda"}), folder)


def test_a_session_whose_work_fell_back_is_an_error(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its provider is registered and takes no node: the one other provider of this wheel."""

    def register(path: str, options: ort.SessionOptions, **_: Any) -> ort.InferenceSession:
        return real_session(path, options, providers=[other, "CPUExecutionProvider"])

    real_session, other = ort.InferenceSession, "AzureExecutionProvider"
    monkeypatch.setitem(session.PROVIDERS, "cuda", other)
    monkeypatch.setattr(ort, "InferenceSession", register)
    with pytest.raises(ConfigurationError, match=r"leaves 2 GroupQueryAttention, \d+ MatMul to"):
        load_model(spec(options={"provider": "cuda"}), folder)


@pytest.mark.parametrize(
    ("on_cpu", "is_refused"),
    [
        (["Shape", "Gather", "Concat"], False),
        (["Shape", "MatMul"], False),  # of rotary frequencies
        (["MatMul"] * 4, True),
        (["Attention"], True),
    ],
)
def test_only_a_decoders_work_must_be_taken(on_cpu: list[str], *, is_refused: bool) -> None:
    """Nodes that compute shapes and positions belong on the CPU."""
    parts = {"CPUExecutionProvider": on_cpu, "Some": ["MatMul", "Attention", "MatMul", "Gemm"]}
    taken = [
        SimpleNamespace(
            ep_name=name, get_nodes=lambda types=types: [SimpleNamespace(op_type=t) for t in types]
        )
        for name, types in parts.items()
    ]
    made: Any = SimpleNamespace(
        get_providers=lambda: ["Some"], get_provider_graph_assignment_info=lambda: taken
    )
    refusal = pytest.raises(ConfigurationError, match="to the CPU") if is_refused else nullcontext()
    with refusal:
        session._check_assignment(made, "Some")


def test_the_environment_and_the_options_set_the_session(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model's options win over the environment; both reach the session."""
    monkeypatch.setenv("PROVIDER_ONNXRUNTIME_INTRA_OP_NUM_THREADS", "3")
    monkeypatch.setenv("PROVIDER_ONNXRUNTIME_SPIN_DURATION_US", "0")
    options = session.session_options(OnnxRuntimeSettings(intra_op_num_threads=1))
    assert options.intra_op_num_threads == 1
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"


@pytest.mark.parametrize(
    ("threads", "weights_bytes", "in_parallel"), [(2, 2**20, "0"), (2, 2**30 + 1, "1"), (3, 1, "1")]
)
def test_small_weights_leave_a_core_to_the_start(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    threads: int,
    weights_bytes: int,
    in_parallel: str,
) -> None:
    """On two cores one thread packs them, while another imports the server."""
    (tmp_path / "model.onnx").touch()
    with (tmp_path / "model.onnx.data").open("wb") as sparse:
        sparse.truncate(weights_bytes)
    made: list[ort.SessionOptions] = []

    def make(_: str, options: ort.SessionOptions, **__: object) -> object:
        made.append(options)
        return object()

    monkeypatch.setattr(ort, "InferenceSession", make)
    settings = OnnxRuntimeSettings(intra_op_num_threads=threads)
    session.open_session(tmp_path / "model.onnx", settings)
    assert made[0].get_session_config_entry(session.PARALLEL_PACKING) == in_parallel


def test_threads_are_never_more_than_cores() -> None:
    """By default one thread per physical core that this process may use."""
    assert OnnxRuntimeSettings().intra_op_num_threads == count_usable_cores()
    assert 1 <= count_usable_cores() <= (os.cpu_count() or 1)


@pytest.mark.parametrize(
    ("quota", "expected"),
    [("100000 100000", 1), ("50000 100000", 1), ("max 100000", None), ("12800000 100000", None)],
)
def test_a_container_quota_cuts_the_threads(
    tmp_path: Path, quota: str, expected: int | None
) -> None:
    """As cgroup v2 writes it; at least one thread, and no quota or a large one changes nothing."""
    unlimited = count_usable_cores(tmp_path / "missing")
    (tmp_path / "cpu.max").write_text(quota)
    assert count_usable_cores(tmp_path / "cpu.max") == (expected or unlimited)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"threads": 2}, "option 'threads' is not one of"),
        ({"intra_op_num_threads": 0}, "option intra_op_num_threads"),
        ({"provider": "tpu"}, "option provider"),
    ],
)
def test_invalid_options_are_named(options: dict[str, object], complaint: str) -> None:
    """Before anything is loaded."""
    with pytest.raises(ConfigurationError, match=complaint):
        read_backend_settings("onnxruntime", OnnxRuntimeSettings, options)


def test_batches_of_another_fixed_size_are_refused(folder: Path, tmp_path: Path) -> None:
    """A graph for exactly four rows cannot serve one."""
    model = onnx.load(folder / "model.onnx")
    [ids] = [info for info in model.graph.input if info.name == "input_ids"]
    ids.type.tensor_type.shape.dim[0].dim_value = 4
    onnx.save_model(model, tmp_path / "model.onnx")
    with pytest.raises(ConfigurationError, match="batches of exactly 4 rows"):
        load_model(spec(), tmp_path)


def test_slots_cost_memory_only_for_what_they_hold() -> None:
    """Three gigabytes of slots: nothing before the first token, pages of it after."""
    caches = [CacheTensor(f"past.{index}", f"present.{index}", 2, 64) for index in range(12)]
    before = resident_bytes()
    pool = HostKvPool(caches, "float32", 32, 16_384)
    assert sum(array.nbytes for array in pool.arrays) > 3 * 10**9
    assert resident_bytes() - before < 10**7
    for array in pool.arrays:
        array[:, :, 0] = 1
    num_pages = 12 * 32 * 2
    assert resident_bytes() - before < 10**7 + num_pages * 4096
    pool.close()


def test_a_move_copies_what_the_slot_holds() -> None:
    """The first positions of every head, and no others."""
    pool = HostKvPool([CacheTensor("past", "present", 2, 4)], "float16", 3, 8)
    [array] = pool.arrays
    array[2] = np.arange(2 * 8 * 4).reshape(2, 8, 4)
    pool.move(2, 0, 5)
    np.testing.assert_array_equal(array[0, :, :5], array[2, :, :5])
    assert not array[0, :, 5:].any()


def test_slots_that_the_system_does_not_grant_are_refused() -> None:
    """A start-up error that names what to lower, not a crash."""
    caches = [CacheTensor("past", "present", 2**10, 2**10)]
    with pytest.raises(ConfigurationError, match="lower max_num_seqs"):
        HostKvPool(caches, "float32", 2**10, 2**24)
