"""TensorRT for RTX as ONNX Runtime's provider: found, registered once, and never replaced silently.

What it computes needs a GPU: `tests/gpu`.
"""

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import onnxruntime as ort
import pytest

from provider_core import ConfigurationError, ModelSpec
from provider_export.export import export_decoder
from provider_onnxruntime import load_model, rtx_provider, session
from provider_onnxruntime.rtx_provider import PACKAGE, add_rtx_provider
from provider_onnxruntime.settings import read_settings
from tests.tiny_checkpoints import write_checkpoint

NAME = "NvTensorRTRTXExecutionProvider"


class Registry:
    """What ONNX Runtime is told, and the devices it then offers."""

    def __init__(self, num_gpus: int) -> None:
        self.registered: list[tuple[str, str]] = []
        self.devices = [SimpleNamespace(ep_name=NAME, number=i) for i in range(num_gpus)]
        self.devices.insert(0, SimpleNamespace(ep_name="CPUExecutionProvider", number=0))


@pytest.fixture
def registry(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Registry:
    """The package, scripted, on a machine with so many GPUs."""
    registry = Registry(request.param)
    package: Any = SimpleNamespace(get_ep_name=lambda: NAME, get_library_path=lambda: "/lib.so")
    monkeypatch.setitem(sys.modules, PACKAGE, package)
    monkeypatch.setattr(rtx_provider, "_registered", set())
    monkeypatch.setattr(
        ort,
        "register_execution_provider_library",
        lambda *arguments: registry.registered.append(arguments),
    )
    monkeypatch.setattr(ort, "get_ep_devices", lambda: registry.devices)
    return registry


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny decoder."""
    folder = write_checkpoint(tmp_path_factory.mktemp("tiny"))
    export_decoder(folder, folder, target="tensorrt")
    return folder


def load(folder: Path) -> None:
    """Load a decoder on that provider."""
    options = {"provider": "tensorrt_rtx"}
    load_model(ModelSpec(id="tiny", source="", max_model_len=64, options=options), folder)


@pytest.mark.parametrize("registry", [2], indirect=True)
def test_a_session_takes_one_gpu_of_a_library_that_is_registered_once(registry: Registry) -> None:
    """However many sessions there are."""
    taken: list[Any] = []
    options: Any = SimpleNamespace(
        add_provider_for_devices=lambda devices, _options: taken.append(devices)
    )
    add_rtx_provider(options, 1)
    add_rtx_provider(options, 0)
    assert registry.registered == [(NAME, "/lib.so")]
    assert [[device.number for device in devices] for devices in taken] == [[1], [0]]


@pytest.mark.parametrize("registry", [0], indirect=True)
def test_no_gpu_is_an_error(registry: Registry, folder: Path) -> None:
    """No silent CPU."""
    with pytest.raises(ConfigurationError, match=r"finds no GPU 0 \(0 found\)"):
        load(folder)
    assert registry.registered


def test_a_package_that_is_missing_is_an_error(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the command that installs it."""
    monkeypatch.setitem(sys.modules, PACKAGE, None)
    with pytest.raises(ConfigurationError, match=r"pip install.*tensorrt-rtx"):
        load(folder)


def test_a_session_that_fell_back_is_an_error(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A provider that takes no node, or cannot start, leaves a session on the CPU."""
    monkeypatch.setattr(session, "add_rtx_provider", lambda _options, _device_id: None)
    with pytest.raises(ConfigurationError, match=f"{NAME} was asked for and the session runs on"):
        load(folder)


def test_caches_have_a_fixed_length(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """TensorRT takes no other: here the graph runs on the CPU, and shows what it was told."""
    monkeypatch.setattr(session, "add_rtx_provider", lambda _options, _device_id: None)
    monkeypatch.setitem(session.PROVIDERS, "tensorrt_rtx", "CPUExecutionProvider")
    settings = read_settings({"provider": "tensorrt_rtx"})
    opened = session.open_session(folder / "model.onnx", settings, max_model_len=64)
    caches = [value for value in opened.get_inputs() if value.name.startswith("past")]
    assert [value.shape[2] for value in caches] == [64] * 4
