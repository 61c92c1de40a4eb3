"""TensorRT as it is installed, and what is said where it is not."""

import ctypes
import subprocess
import sys
from pathlib import Path

import pytest

from provider_core import ConfigurationError
from provider_tensorrt import diagnose
from provider_tensorrt import library as library_module
from provider_tensorrt.library import (
    DATA_CENTRE_INSTALL_COMMAND,
    TensorRt,
    find_capability,
    find_library,
    list_capabilities,
)

ROOT = Path(__file__).parents[3]
WITHOUT = """
import sys
for name in {names}:
    sys.modules[name] = None  # importing it raises ImportError, finding it finds nothing
from provider_core import ProviderError
from provider_tensorrt.library import find_library
try:
    find_library()
except ProviderError as error:
    print(error.message)
"""


def test_the_rtx_library_is_found_and_works(library: TensorRt) -> None:
    """Its version is what engines are tied to; it builds for other GPUs than the one here."""
    assert library.name == "tensorrt_rtx"
    assert library.version.count(".") >= 2
    assert library.builds_anywhere
    assert {"8.9", "12.0"} <= set(list_capabilities(library))
    assert library.module.Logger is not None


def test_what_is_installed_is_taken() -> None:
    """The data-centre library is not, where the tests run."""
    assert find_library().name == "tensorrt_rtx"


def test_the_data_centre_library_is_asked_for_in_vain() -> None:
    """The message has the command that brings it."""
    with pytest.raises(ConfigurationError, match=r'run: pip install "provider-core\[tensorrt\]"'):
        find_library("tensorrt")


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (
            ("tensorrt", "tensorrt_rtx", "tensorrt_rtx_bindings"),
            "TensorRT is not installed; run: pip install",
        ),
        (
            ("tensorrt", "tensorrt_rtx", library_module.RTX_LIBRARY_PACKAGE),
            "the libraries of TensorRT for RTX are not installed; run: pip install",
        ),
    ],
)
def test_what_is_missing_is_one_line_with_a_command(names: tuple[str, ...], expected: str) -> None:
    """In a process that cannot import it."""
    ran = subprocess.run(
        [sys.executable, "-c", WITHOUT.format(names=names)],
        env={"PYTHONPATH": f"{ROOT}:{ROOT / 'plugins'}"},
        capture_output=True,
        text=True,
        timeout=50,
        check=True,
    )

    (line,) = ran.stdout.splitlines()
    assert line.startswith(expected)


def test_a_package_without_its_libraries_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A half-installed package, or one for another system."""
    monkeypatch.setattr(library_module, "_library_folders", lambda: [tmp_path])

    with pytest.raises(ConfigurationError, match=r"lacks libcudart\.so\.13\*; run: pip install"):
        find_library("tensorrt_rtx")


def test_a_library_that_does_not_load_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the loader's own reason."""
    (tmp_path / "libcudart.so.13").write_bytes(b"no library")
    monkeypatch.setattr(library_module, "_library_folders", lambda: [tmp_path])

    with pytest.raises(ConfigurationError, match=r"libcudart\.so\.13 does not load: "):
        find_library("tensorrt_rtx")


def test_a_machine_without_a_driver_has_no_capability(monkeypatch: pytest.MonkeyPatch) -> None:
    """Asking is no error."""

    def refuse(name: str) -> None:
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(ctypes, "CDLL", refuse)

    assert find_capability() is None


class Driver:
    """The three calls of the CUDA driver, for two GPUs of compute capability 8.9."""

    def cuInit(self, flags: int) -> int:  # noqa: N802 - the driver's name
        """Succeed."""
        return 0

    def cuDeviceGet(self, device: object, number: int) -> int:  # noqa: N802 - as above
        """Fail with CUDA_ERROR_INVALID_DEVICE for a third."""
        return 0 if number < 2 else 101

    def cuDeviceGetAttribute(self, out: object, attribute: int, device: object) -> int:  # noqa: N802
        """Give the major and the minor number."""
        out._obj.value = {75: 8, 76: 9}[attribute]  # type: ignore[attr-defined] # byref's target
        return 0


@pytest.mark.parametrize(("device_id", "expected"), [(0, "8.9"), (1, "8.9"), (2, None)])
def test_the_capability_is_the_drivers(
    device_id: int, expected: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without any package."""
    monkeypatch.setattr(ctypes, "CDLL", lambda name: Driver())

    assert find_capability(device_id) == expected


def test_the_doctor_says_what_can_be_done(monkeypatch: pytest.MonkeyPatch) -> None:
    """Build, run, or neither."""
    (found,) = diagnose()
    assert found.status == "missing"
    assert "builds engines here" in found.detail

    monkeypatch.setattr(library_module, "find_capability", lambda: "8.9")
    (found,) = diagnose()
    assert found.status == "ok"
    assert found.detail.endswith("a GPU of compute capability 8.9")

    monkeypatch.setattr(library_module, "find_spec", lambda name: None)
    (found,) = diagnose()
    assert found.status == "missing"
    assert found.remedy == library_module.INSTALL_COMMAND


@pytest.mark.parametrize("capability", ["9.0", "10.0", "10.3"])
def test_the_doctor_sends_data_centre_gpus_to_their_library(
    monkeypatch: pytest.MonkeyPatch, capability: str
) -> None:
    """TensorRT for RTX builds nothing for them, whether or not it is installed."""
    monkeypatch.setattr(library_module, "find_capability", lambda: capability)
    (found,) = diagnose()
    assert (found.status, found.remedy) == ("missing", DATA_CENTRE_INSTALL_COMMAND)
    assert found.detail.endswith(f"but none for this GPU, which has {capability}")

    monkeypatch.setattr(library_module, "is_installed", lambda: False)
    (found,) = diagnose()
    assert (found.status, found.remedy) == ("missing", DATA_CENTRE_INSTALL_COMMAND)


def test_the_doctor_misses_what_a_library_alone_does_not_bring(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No start would get as far as the GPU."""
    monkeypatch.setattr(library_module, "find_capability", lambda: "8.9")
    for package in ("cuda", "cuda.bindings", "onnx"):
        monkeypatch.setitem(sys.modules, package, None)
    (found,) = diagnose()
    assert (found.status, found.remedy) == ("failed", library_module.INSTALL_COMMAND)
    assert found.detail.endswith(", without cuda.bindings and onnx")
