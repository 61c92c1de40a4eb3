"""TensorRT for RTX as ONNX Runtime's provider: found, registered once, and never replaced silently.

What it computes needs a GPU: `tests/gpu`.
"""

import os
import sys
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import onnxruntime as ort
import pytest
from structlog.testing import capture_logs

from provider_core import ConfigurationError, ModelSpec
from provider_export.export import export_decoder
from provider_onnxruntime import load_model, rtx_provider, session
from provider_onnxruntime.rtx_provider import PACKAGE, add_rtx_provider
from provider_onnxruntime.settings import OnnxRuntimeSettings
from tests.tiny_checkpoints import write_checkpoint

NAME = "NvTensorRTRTXExecutionProvider"


class Registry:
    """What ONNX Runtime is told, and the devices it then offers."""

    def __init__(self, num_gpus: int) -> None:
        self.registered: list[tuple[str, str]] = []
        self.devices = [
            SimpleNamespace(
                ep_name=NAME,
                number=i,
                ep_metadata={"version": "1.7.1"},
                device=SimpleNamespace(vendor_id=4318, device_id=9860 + i),
            )
            for i in range(num_gpus)
        ]
        self.devices.insert(0, SimpleNamespace(ep_name="CPUExecutionProvider", number=0))


class Taken:
    """Devices that sessions took, and with which options."""

    def __init__(self) -> None:
        self.devices: list[tuple[Any, dict[str, str]]] = []

    def add(self, model: Path, **options: object) -> None:
        """Make options of a session."""
        session_options: Any = SimpleNamespace(
            add_provider_for_devices=lambda devices, options: self.devices.append(
                (devices[0], options)
            )
        )
        settings = OnnxRuntimeSettings.model_validate({"provider": "tensorrt_rtx", **options})
        add_rtx_provider(session_options, settings, model)

    def folders(self) -> list[Path]:
        """Where each keeps kernels."""
        return [Path(options["nv_runtime_cache_path"]) for _, options in self.devices]


@pytest.fixture
def registry(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Registry:
    """The package, scripted, on a machine with so many GPUs."""
    registry = Registry(request.param)
    package: Any = SimpleNamespace(
        get_ep_name=lambda: NAME, get_library_path=lambda: "/lib.so", __version__="0.5.0"
    )
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
def test_a_session_takes_one_gpu_of_a_library_that_is_registered_once(
    registry: Registry, tmp_path: Path
) -> None:
    """However many sessions there are."""
    taken = Taken()
    for device_id in (1, 0):
        taken.add(tmp_path / "model.onnx", device_id=device_id, cache=False)
    assert registry.registered == [(NAME, "/lib.so")]
    assert [(device.number, options) for device, options in taken.devices] == [(1, {}), (0, {})]


@pytest.mark.parametrize("registry", [2], indirect=True)
def test_kernels_are_kept_for_each_kind_of_gpu(registry: Registry, tmp_path: Path) -> None:
    """In a folder of ours beside the model, or in the one that is named; the same at each start."""
    taken = Taken()
    model = tmp_path / "model.onnx"
    for device_id in (0, 0, 1):
        taken.add(model, device_id=device_id)
    taken.add(model, cache_dir=tmp_path / "shared")

    first, again, second, shared = taken.folders()
    assert registry.registered
    assert first == again
    assert len({first, second, shared}) == 3
    assert first.parent == second.parent == tmp_path / ".provider-cache"
    assert shared.parent.parent == tmp_path / "shared"
    assert [each.stat().st_mode & 0o777 for each in (first, first.parent)] == [0o700, 0o755]


@pytest.mark.parametrize("registry", [1], indirect=True)
def test_kernels_are_there_at_the_next_start_whatever_the_umask(
    registry: Registry, tmp_path: Path
) -> None:
    """The library asks for 0666; that others might write counts for nothing behind our door."""
    taken = Taken()
    taken.add(tmp_path / "model.onnx")
    [folder] = taken.folders()
    (folder / "kernels").touch()
    (folder / "kernels").chmod(0o664)  # umask 002, as Debian's and Fedora's users have it
    with capture_logs() as logs:
        taken.add(tmp_path / "model.onnx")

    assert taken.folders() == [folder, folder]
    assert [path.name for path in folder.iterdir()] == ["kernels"]
    assert logs == []
    assert registry.registered


@pytest.mark.parametrize("registry", [1], indirect=True)
def test_kernels_in_a_folder_that_others_can_enter_are_dropped(
    registry: Registry, tmp_path: Path
) -> None:
    """They are code, and may be somebody's else."""
    taken = Taken()
    taken.add(tmp_path / "model.onnx")
    [folder] = taken.folders()
    (folder / "kernels").touch(0o644)
    folder.chmod(0o755)
    with capture_logs() as logs:
        taken.add(tmp_path / "model.onnx")

    assert list(folder.iterdir()) == []
    assert folder.stat().st_mode & 0o777 == 0o700
    assert [line["event"] for line in logs] == ["kernels.dropped"]
    assert registry.registered


@pytest.mark.parametrize("registry", [1], indirect=True)
def test_the_folders_used_last_are_left(registry: Registry, tmp_path: Path) -> None:
    """And nothing else is touched."""
    taken, root = Taken(), tmp_path / ".provider-cache"
    taken.add(tmp_path / "model.onnx")
    [first] = taken.folders()
    os.utime(first, (1000, 1000))
    (root / "graph").mkdir()
    os.utime(root / "graph", (0, 0))
    for version in range(rtx_provider.MAX_FOLDERS):
        registry.devices[1].ep_metadata["version"] = str(version)
        taken.add(tmp_path / "model.onnx")
        os.utime(taken.folders()[-1], (2000 + version, 2000 + version))

    assert {path.name for path in root.iterdir()} == {
        "graph",
        *(path.name for path in taken.folders()[1:]),
    }


@pytest.mark.parametrize("registry", [1], indirect=True)
def test_a_folder_that_is_not_ours_is_not_used(registry: Registry, tmp_path: Path) -> None:
    """Nor one that cannot be made; neither is an error."""
    taken = Taken()
    (tmp_path / ".provider-cache").mkdir()
    (tmp_path / ".provider-cache").chmod(0o777)
    (tmp_path / "file").touch()
    with capture_logs() as logs:
        taken.add(tmp_path / "model.onnx")
        taken.add(tmp_path / "model.onnx", cache_dir=tmp_path / "file")

    assert [options for _, options in taken.devices] == [{}, {}]
    assert [line["event"] for line in logs] == ["kernels.not_kept"] * 2
    assert registry.registered


def test_the_provider_knows_the_option() -> None:
    """As the package that is installed declares it."""
    spec = find_spec(PACKAGE)
    assert spec is not None
    assert spec.origin is not None
    header = Path(spec.origin).with_name("tensorrt_rtx_provider_options.h").read_text()
    assert f'kRuntimeCacheFile = "{rtx_provider.KERNELS_OPTION}"' in header


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
    monkeypatch.setattr(session, "add_rtx_provider", lambda *_: None)
    with pytest.raises(ConfigurationError, match=f"{NAME} was asked for and the session runs on"):
        load(folder)


def test_caches_have_a_fixed_length(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """TensorRT takes no other: here the graph runs on the CPU, and shows what it was told."""
    monkeypatch.setattr(session, "add_rtx_provider", lambda *_: None)
    monkeypatch.setitem(session.PROVIDERS, "tensorrt_rtx", "CPUExecutionProvider")
    settings = OnnxRuntimeSettings(provider="tensorrt_rtx")
    opened = session.open_session(folder / "model.onnx", settings, max_model_len=64)
    caches = [value for value in opened.get_inputs() if value.name.startswith("past")]
    assert [value.shape[2] for value in caches] == [64] * 4
