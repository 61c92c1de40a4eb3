"""The tests of `tests/gpu` for TensorRT, run once: real engines, and a scripted GPU to run them."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest

from provider_core.gpu_models import GpuModels
from provider_export.export import export_decoder
from provider_tensorrt import building, cuda_device, loading, runner
from provider_tensorrt.artefact import EngineLimits
from provider_tensorrt.decoder_graph import read_decoder
from provider_tensorrt.host_device import HostDevice
from provider_tensorrt.library import TensorRt, find_library
from tests.gpu import test_tensorrt_runner as on_gpu
from tests.integration.tensorrt.scripted_gpu import ScriptedCuda, ScriptedEngine, ScriptedTensorRt
from tests.tiny_checkpoints import write_checkpoint

CAPABILITY = "8.9"


class ScriptedRuntimeCache:
    """`IRuntimeCache`: something that is read back."""

    def serialize(self) -> bytes:
        """What was compiled."""
        return b"kernels"

    def deserialize(self, blob: bytes) -> bool:
        """Whether that is it."""
        return blob == b"kernels"


@pytest.fixture(autouse=True)
def cuda(monkeypatch: pytest.MonkeyPatch) -> ScriptedCuda:
    """A GPU; engines are built for it by the library that is installed, and run by the script."""
    cuda, real = ScriptedCuda(), find_library("tensorrt_rtx")
    read = loading.find_or_build_engine
    found: list[tuple[Path, EngineLimits]] = []

    def find(model: Any, model_dir: Path, *arguments: Any) -> Any:
        engine, content = read(model, model_dir, *arguments)
        found.append((model_dir, engine.record.key.limits))
        return engine, content

    def open_session(_engine: bytes) -> Any:
        folder, limits = found[-1]
        return HostDevice(read_decoder(folder), limits)._session

    make_config = ScriptedEngine.create_runtime_config

    def make_rtx_config(engine: ScriptedEngine) -> Any:
        config = make_config(engine)
        config.create_runtime_cache = ScriptedRuntimeCache
        config.set_runtime_cache = partial(setattr, config, "cache")
        return config

    script = TensorRt("tensorrt_rtx", real.version, ScriptedTensorRt(cuda, open_session))
    monkeypatch.setattr(cuda_device, "cuda", cuda)
    monkeypatch.setattr(loading, "find_library", lambda _name: script)
    monkeypatch.setattr(loading, "find_or_build_engine", find)
    monkeypatch.setattr(ScriptedEngine, "create_runtime_config", make_rtx_config)
    for module in (building, loading):
        monkeypatch.setattr(module, "find_capability", lambda *_: CAPABILITY)
    return cuda


def test_the_contract_gets_its_runner(tmp_path: Path) -> None:
    """On an engine built for that GPU; the contract itself runs over the same script elsewhere."""
    contract = on_gpu.TestTensorRt()
    contract.folder = write_checkpoint(tmp_path)
    export_decoder(tmp_path, tmp_path, target="tensorrt")
    contract.test_batched_equals_alone()


@pytest.mark.parametrize("family", ["llama", "gemma2"])
def test_logits_are_compared(tmp_path: Path, family: str) -> None:
    """With those of a plain forward pass."""
    on_gpu.test_logits_equal_a_plain_forward_pass(tmp_path, family)


def test_kernels_are_looked_for(tmp_path: Path) -> None:
    """Where the first start leaves them."""
    on_gpu.test_a_second_start_finds_what_the_first_compiled(tmp_path)


def test_a_model_counts_while_it_is_on_the_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that no other backend captures meanwhile."""
    models = GpuModels()
    for module in (loading, runner):
        monkeypatch.setattr(module, "GPU_MODELS", models)
    write_checkpoint(tmp_path)
    export_decoder(tmp_path, tmp_path, target="tensorrt")
    loaded = on_gpu.load_on_gpu(tmp_path)
    with models.capturing() as is_alone:
        assert is_alone
    other = models.open(ScriptedCuda)  # whatever another backend has there
    with models.capturing() as is_alone:
        assert not is_alone
    loaded.close()
    with models.capturing() as is_alone:
        assert is_alone
    models.leave(other)
