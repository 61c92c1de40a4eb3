"""The CUDA device's calls, over scripted libraries: order, memory, and graphs.

What a GPU computes is not shown here; `tests/gpu` needs one.
"""

import weakref
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from cuda.bindings import runtime

from provider_core import ConfigurationError, EngineDead, ModelRunner
from provider_core.testing import RunnerContract
from provider_tensorrt.artefact import EngineLimits
from provider_tensorrt.cuda_device import CudaDevice
from provider_tensorrt.decoder_graph import read_decoder
from provider_tensorrt.device import DeviceMemoryFull
from provider_tensorrt.host_device import HostDevice
from provider_tensorrt.library import TensorRt, find_library
from provider_tensorrt.runner import TensorRtRunner
from tests.generation import generate_greedily
from tests.integration.tensorrt.scripted_gpu import (
    CudaError,
    ScriptedContext,
    ScriptedCuda,
    ScriptedEngine,
    ScriptedTensorRt,
)
from tests.reference_decoder import ReferenceDecoder

LIMITS = EngineLimits(max_model_len=256, max_num_seqs=4, max_prefill_tokens=64, num_candidates=8)
ENGINE = b"engine"
PROMPTS = [[3, 14, 15, 92, 65], [35, 89, 79], [32, 38, 46, 26, 43, 38]]


def make_device(cuda: ScriptedCuda, folder: Path, **options: Any) -> CudaDevice:
    """It, with an engine of the folder's decoder."""
    session = HostDevice(read_decoder(folder), LIMITS)._session
    assert session is not None
    module = ScriptedTensorRt(cuda, lambda _engine: session)
    library = TensorRt("tensorrt", module.__version__, module)
    engine = options.pop("engine", ENGINE)
    return CudaDevice(library, engine, device_id=cuda.device_id, **options)


def make_runner(device: CudaDevice, folder: Path) -> TensorRtRunner:
    """A runner over it."""
    io = read_decoder(folder).io
    return TensorRtRunner(
        device, io, LIMITS, max_num_seqs=4, max_model_len=256, prefix_cache_bytes=2**20
    )


class TestScriptedGpu(RunnerContract):
    """All that the contract asks, with steps that are done only when they are waited for."""

    folder: Path
    cuda: ScriptedCuda

    @pytest.fixture(autouse=True)
    def take_fixtures(self, folder: Path, cuda: ScriptedCuda) -> Iterator[None]:
        """A decoder and a GPU; afterwards the GPU's memory is free."""
        self.folder, self.cuda = folder, cuda
        yield
        assert not cuda.arrays
        assert not cuda.pinned

    def make_runner(self) -> ModelRunner:
        """Four slots."""
        return make_runner(make_device(self.cuda, self.folder), self.folder)


def test_greedy_tokens_equal_a_plain_forward_pass(cuda: ScriptedCuda, folder: Path) -> None:
    """Nothing is read before it is there."""
    runner = make_runner(make_device(cuda, folder), folder)
    reference = ReferenceDecoder(folder)
    expected = [reference.greedy(prompt, 20) for prompt in PROMPTS]
    assert generate_greedily(runner, PROMPTS, 20) == expected
    runner.close()


def test_decodes_are_replayed_from_the_second_on(cuda: ScriptedCuda, folder: Path) -> None:
    """Each shape once as it is, then as a graph; prefills never."""
    runner = make_runner(make_device(cuda, folder), folder)
    generate_greedily(runner, PROMPTS, 11)
    assert cuda.num_launches == 9
    runner.close()


def test_graphs_can_be_left_out(cuda: ScriptedCuda, folder: Path) -> None:
    """With the same ids."""
    runner = make_runner(make_device(cuda, folder), folder)
    expected = generate_greedily(runner, PROMPTS, 11)
    runner.close()
    cuda.num_launches = 0
    runner = make_runner(make_device(cuda, folder, captures_graphs=False), folder)
    assert generate_greedily(runner, PROMPTS, 11) == expected
    assert cuda.num_launches == 0
    runner.close()


def test_work_that_cannot_be_captured_is_queued(
    cuda: ScriptedCuda, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the engine holds that a graph cannot."""

    def end_capture(_stream: int) -> tuple[CudaError, None]:
        cuda._captured = None
        return CudaError.cudaErrorNoDevice, None

    runner = make_runner(make_device(cuda, folder), folder)
    expected = generate_greedily(runner, PROMPTS, 5)
    runner.close()
    monkeypatch.setattr(cuda, "cudaStreamEndCapture", end_capture)
    cuda.num_launches = 0
    runner = make_runner(make_device(cuda, folder), folder)
    assert generate_greedily(runner, PROMPTS, 5) == expected
    assert cuda.num_launches == 0
    runner.close()


def test_a_thread_that_used_another_gpu_uses_ours(cuda: ScriptedCuda, folder: Path) -> None:
    """Two models of one process share threads, and threads are told apart by nothing that lasts."""
    cuda.device_id = 1
    runner = make_runner(make_device(cuda, folder), folder)
    expected = generate_greedily(runner, PROMPTS, 5)
    cuda.cudaSetDevice(0)
    assert generate_greedily(runner, PROMPTS, 5) == expected
    runner.close()


def test_close_gives_memory_back_after_the_gpu_failed(
    cuda: ScriptedCuda, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every call returns the error, that which chooses the GPU among them."""
    runner = make_runner(make_device(cuda, folder), folder)
    failed = (CudaError.cudaErrorIllegalAddress,)
    monkeypatch.setattr(cuda, "cudaSetDevice", lambda _device_id: failed)
    with pytest.raises(EngineDead, match="the GPU failed: cudaErrorIllegalAddress"):
        runner.warm_up()

    runner.close()

    assert not cuda.arrays
    assert not cuda.pinned


def test_a_graph_without_memory_is_left_out(
    cuda: ScriptedCuda, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its shape is queued step by step, with the same ids."""
    runner = make_runner(make_device(cuda, folder), folder)
    expected = generate_greedily(runner, PROMPTS, 5)
    runner.close()
    full = (CudaError.cudaErrorMemoryAllocation, None)
    monkeypatch.setattr(cuda, "cudaGraphInstantiate", lambda _graph, _flags: full)
    cuda.num_launches = 0
    runner = make_runner(make_device(cuda, folder), folder)
    assert generate_greedily(runner, PROMPTS, 5) == expected
    assert cuda.num_launches == 0
    runner.close()


def test_idle_shapes_give_their_memory_to_a_new_one(
    cuda: ScriptedCuda, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Contexts for a prefill and for two shapes of decode fit; other shapes come and go."""
    runner = make_runner(make_device(cuda, folder), folder)
    expected = generate_greedily(runner, PROMPTS, 5)
    runner.close()
    alive: list[weakref.ref[ScriptedContext]] = []

    def make_context(engine: ScriptedEngine, _config: Any) -> ScriptedContext | None:
        alive[:] = [each for each in alive if each() is not None]
        if len(alive) == 3:
            return None
        context = ScriptedContext(engine)
        alive.append(weakref.ref(context))
        return context

    monkeypatch.setattr(ScriptedEngine, "create_execution_context", make_context)
    runner = make_runner(make_device(cuda, folder), folder)
    for num_rows in (1, 2, 3, 1):
        assert generate_greedily(runner, PROMPTS[:num_rows], 5) == expected[:num_rows]
        assert len(runner._decodes) <= 2
    runner.close()
    monkeypatch.setattr(ScriptedEngine, "create_execution_context", lambda *_: None)
    with pytest.raises(DeviceMemoryFull, match="no execution context on cuda:0"):
        make_device(cuda, folder).make_execution("decode")


def test_contexts_share_the_kernels_that_are_compiled(
    cuda: ScriptedCuda, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the library compiles as it runs, a new shape of decode finds what others compiled."""
    configs: list[Any] = []
    make_config = ScriptedEngine.create_runtime_config

    def make_rtx_config(engine: ScriptedEngine) -> Any:
        config = make_config(engine)
        config.create_runtime_cache = object
        config.set_runtime_cache = partial(setattr, config, "cache")
        configs.append(config)
        return config

    monkeypatch.setattr(ScriptedEngine, "create_runtime_config", make_rtx_config)
    runner = make_runner(make_device(cuda, folder), folder)
    generate_greedily(runner, PROMPTS, 3)
    generate_greedily(runner, PROMPTS[:1], 3)

    assert len(configs) == 3
    assert len({id(config.cache) for config in configs}) == 1
    runner.close()


def test_an_engine_larger_than_the_gpu_is_not_opened(cuda: ScriptedCuda, folder: Path) -> None:
    """With both numbers."""
    cuda.total_bytes = 3 * 2**20
    with pytest.raises(ConfigurationError, match="takes 5 MiB and cuda:0 has 3 MiB free"):
        make_device(cuda, folder, engine=bytes(5 * 2**20))


def test_an_engine_that_does_not_load_is_an_error(cuda: ScriptedCuda, folder: Path) -> None:
    """With what the library says."""
    with pytest.raises(ConfigurationError, match=r"cannot load.*on cuda:0: the engine is empty"):
        make_device(cuda, folder, engine=b"")


def test_a_gpu_that_is_not_there_is_named(
    cuda: ScriptedCuda, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With what CUDA says."""
    monkeypatch.setattr(cuda, "cudaGetDeviceCount", lambda: (CudaError.cudaErrorNoDevice, 0))
    with pytest.raises(ConfigurationError, match=r"no GPU cuda:0 \(cudaErrorNoDevice\)"):
        make_device(cuda, folder)


def test_the_script_has_the_names_of_the_runtime() -> None:
    """What `CudaDevice` calls exists in the package that is installed."""
    names = [name for name in dir(ScriptedCuda) if name.startswith("cuda")]
    assert len(names) > 20
    assert [name for name in names if not hasattr(runtime, name)] == []


def test_the_runtime_takes_the_arguments_that_it_is_given() -> None:
    """Without a driver every call fails with a status, and none for its arguments.

    With one, `tests/gpu` calls them in earnest.
    """
    error, _ = runtime.cudaGetDeviceCount()
    if error == runtime.cudaError_t.cudaSuccess:
        return
    stream, graph = runtime.cudaStream_t(0), runtime.cudaGraph_t(0)
    captured = runtime.cudaGraphExec_t(0)
    kind = runtime.cudaMemcpyKind.cudaMemcpyDeviceToDevice
    mode = runtime.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
    calls: dict[str, tuple[object, ...]] = {
        "cudaSetDevice": (0,),
        "cudaMemGetInfo": (),
        "cudaGetDeviceProperties": (0,),
        "cudaMalloc": (16,),
        "cudaFree": (0,),
        "cudaHostAlloc": (16, runtime.cudaHostAllocDefault),
        "cudaFreeHost": (0,),
        "cudaMemcpyAsync": (0, 0, 16, kind, stream),
        "cudaMemcpy2DAsync": (0, 4, 0, 4, 4, 2, kind, stream),
        "cudaMemsetAsync": (0, 0, 16, stream),
        "cudaStreamCreateWithFlags": (runtime.cudaStreamNonBlocking,),
        "cudaStreamSynchronize": (stream,),
        "cudaStreamBeginCapture": (stream, mode),
        "cudaStreamEndCapture": (stream,),
        "cudaGraphInstantiate": (graph, 0),
        "cudaGraphLaunch": (captured, stream),
        "cudaGraphExecDestroy": (captured,),
        "cudaGraphDestroy": (graph,),
        "cudaStreamDestroy": (stream,),
        "cudaGetLastError": (),
    }
    assert runtime.cudaDriverGetVersion() == (runtime.cudaError_t.cudaSuccess, 0)
    assert calls.keys() | {"cudaGetDeviceCount", "cudaDriverGetVersion"} == {
        name for name, value in vars(ScriptedCuda).items() if callable(value) and "cuda" in name
    } - {"cudaError_t"}
    assert {
        name: getattr(runtime, name)(*arguments)[0] for name, arguments in calls.items()
    } == dict.fromkeys(calls, error)


def test_the_script_has_the_names_of_tensorrt() -> None:
    """The same of the library that is installed, and of what only TensorRT for RTX has."""
    module = find_library().module
    for scripted, real in (
        (ScriptedEngine, module.ICudaEngine),
        (ScriptedContext, module.IExecutionContext),
    ):
        names = [name for name in vars(scripted) if not name.startswith("_")]
        assert names
        assert [name for name in names if not hasattr(real, name)] == []
    assert hasattr(module.Runtime, "deserialize_cuda_engine")
    assert hasattr(module.IRuntimeConfig, "set_execution_context_allocation_strategy")
    assert hasattr(module.ExecutionContextAllocationStrategy, "USER_MANAGED")
    assert hasattr(module.IRuntimeConfig, "create_runtime_cache")
    assert hasattr(module.IRuntimeConfig, "set_runtime_cache")
    assert hasattr(module.IRuntimeConfig, "cuda_graph_strategy")
    assert hasattr(module.CudaGraphStrategy, "WHOLE_GRAPH_CAPTURE")
