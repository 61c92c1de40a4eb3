"""Kernels that TensorRT for RTX compiles where it runs: kept on disk, and given to the next start.

The libraries are scripted: a context compiles when it is made, unless its cache has the kernels.
"""

from pathlib import Path
from typing import Any

import pytest
from cuda.bindings import runtime

from provider_core import EngineDead
from provider_tensorrt.artefact import EngineLimits
from provider_tensorrt.cuda_device import CudaDevice
from provider_tensorrt.decoder_graph import read_decoder
from provider_tensorrt.host_device import HostDevice
from provider_tensorrt.kernel_cache import KernelCache
from provider_tensorrt.library import TensorRt, find_library
from provider_tensorrt.runner import TensorRtRunner
from tests.integration.tensorrt.scripted_gpu import (
    CudaError,
    ScriptedContext,
    ScriptedCuda,
    ScriptedEngine,
    ScriptedTensorRt,
)

LIMITS = EngineLimits(max_model_len=256, max_num_seqs=4, max_prefill_tokens=64)
ENGINE = "ab" * 32
COMPILED = b"kernels of "


class ScriptedRuntimeCache:
    """`IRuntimeCache`: the kernels that contexts compiled or were given."""

    def __init__(self, gpu: bytes) -> None:
        self._gpu = gpu
        self.kernels = b""

    def serialize(self) -> memoryview:
        """A buffer, as `IHostMemory` is."""
        return memoryview(self.kernels)

    def deserialize(self, blob: bytes) -> bool:
        """Whether they were compiled for this GPU."""
        if blob != COMPILED + self._gpu:
            return False
        self.kernels = blob
        return True


class ScriptedRtx:
    """What of the library compiles, and how often it did."""

    def __init__(self, cuda: ScriptedCuda, monkeypatch: pytest.MonkeyPatch) -> None:
        self.num_compilations = 0
        make_config = ScriptedEngine.create_runtime_config
        make_context = ScriptedEngine.create_execution_context

        def make_rtx_config(engine: ScriptedEngine) -> Any:
            config = make_config(engine)
            config.create_runtime_cache = lambda: ScriptedRuntimeCache(cuda.name)
            config.set_runtime_cache = lambda cache: setattr(config, "cache", cache)
            return config

        def make_rtx_context(engine: ScriptedEngine, config: Any) -> ScriptedContext:
            if not config.cache.kernels:
                self.num_compilations += 1
                config.cache.kernels = COMPILED + cuda.name
            return make_context(engine, config)

        monkeypatch.setattr(ScriptedEngine, "create_runtime_config", make_rtx_config)
        monkeypatch.setattr(ScriptedEngine, "create_execution_context", make_rtx_context)


@pytest.fixture
def rtx(cuda: ScriptedCuda, monkeypatch: pytest.MonkeyPatch) -> ScriptedRtx:
    """The library for it."""
    return ScriptedRtx(cuda, monkeypatch)


def start(cuda: ScriptedCuda, folder: Path, kernels: KernelCache) -> TensorRtRunner:
    """A runner, warm."""
    session = HostDevice(read_decoder(folder), LIMITS)._session
    assert session is not None
    module = ScriptedTensorRt(cuda, lambda _engine: session)
    library = TensorRt("tensorrt_rtx", module.__version__, module)
    device = CudaDevice(library, b"engine", device_id=0, kernel_cache=kernels)
    runner = TensorRtRunner(
        device, read_decoder(folder).io, LIMITS, max_num_seqs=4, max_model_len=256
    )
    runner.warm_up()
    return runner


def test_the_second_start_compiles_nothing(
    cuda: ScriptedCuda, rtx: ScriptedRtx, folder: Path, tmp_path: Path
) -> None:
    """Although the first was killed: what a warm-up compiles is on disk when it is over."""
    kernels = KernelCache(tmp_path / "kernels", ENGINE)
    start(cuda, folder, kernels)

    start(cuda, folder, kernels).close()

    assert rtx.num_compilations == 1


def test_what_is_compiled_while_serving_is_kept_at_the_end(
    cuda: ScriptedCuda, rtx: ScriptedRtx, folder: Path, tmp_path: Path
) -> None:
    """New shapes of steps bring new kernels."""
    kernels = KernelCache(tmp_path / "kernels", ENGINE)
    runner = start(cuda, folder, kernels)
    (path,) = kernels.folder.iterdir()
    path.unlink()
    device: Any = runner._device
    device._kernels.kernels += b", and more"

    runner.close()

    (path,) = kernels.folder.iterdir()
    assert path.read_bytes().endswith(b", and more")
    assert rtx.num_compilations == 1


def test_what_did_not_change_is_not_written_again(
    cuda: ScriptedCuda, rtx: ScriptedRtx, folder: Path, tmp_path: Path
) -> None:
    """A disk may be slow, or far away."""
    kernels = KernelCache(tmp_path / "kernels", ENGINE)
    start(cuda, folder, kernels).close()
    (path,) = kernels.folder.iterdir()
    before = path.stat().st_ino

    start(cuda, folder, kernels).close()

    assert path.stat().st_ino == before
    assert rtx.num_compilations == 1


def test_another_gpu_compiles_for_itself(
    cuda: ScriptedCuda, rtx: ScriptedRtx, folder: Path, tmp_path: Path
) -> None:
    """And both find theirs later: a folder is shared by machines."""
    kernels = KernelCache(tmp_path / "kernels", ENGINE)
    for name in (b"first", b"second", b"first", b"second"):
        cuda.name = name
        start(cuda, folder, kernels).close()

    assert rtx.num_compilations == 2


def test_what_the_library_refuses_is_compiled_and_written_anew(
    cuda: ScriptedCuda, rtx: ScriptedRtx, folder: Path, tmp_path: Path
) -> None:
    """It knows more of its environment than we do."""
    kernels = KernelCache(tmp_path / "kernels", ENGINE)
    start(cuda, folder, kernels).close()
    (path,) = kernels.folder.iterdir()
    environment = "NVIDIA Scripted 1, compute capability 8.9, driver for CUDA 13000, {} {}".format(
        "tensorrt_rtx", ScriptedTensorRt.__version__
    )
    assert kernels.read(environment) == COMPILED + cuda.name
    kernels.write(environment, b"of a driver that is no more")

    start(cuda, folder, kernels).close()

    assert kernels.read(environment) == COMPILED + cuda.name
    assert rtx.num_compilations == 2
    assert list(kernels.folder.iterdir()) == [path]


def test_nothing_is_kept_of_a_gpu_that_failed(
    cuda: ScriptedCuda,
    rtx: ScriptedRtx,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its memory is given back, and the error is that of the step."""
    kernels = KernelCache(tmp_path / "kernels", ENGINE)
    failed = (CudaError.cudaErrorIllegalAddress,)
    with monkeypatch.context() as patch:
        patch.setattr(cuda, "cudaStreamSynchronize", lambda _stream: failed)
        with pytest.raises(EngineDead, match="cudaErrorIllegalAddress"):
            start(cuda, folder, kernels)
    assert rtx.num_compilations == 1
    assert not kernels.folder.exists()


def test_the_library_has_what_is_called() -> None:
    """The names and the form of the calls, in the packages that are installed."""
    module = find_library("tensorrt_rtx").module
    cache, config = module.IRuntimeCache, module.IRuntimeConfig
    assert "-> bool" in cache.deserialize.__doc__
    assert "IHostMemory" in cache.serialize.__doc__
    assert "IRuntimeCache" in config.create_runtime_cache.__doc__
    assert "cache" in config.set_runtime_cache.__doc__
    properties = runtime.cudaDeviceProp()
    assert isinstance(properties.name, bytes)
    assert (properties.major, properties.minor) == (0, 0)
