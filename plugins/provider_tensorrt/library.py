"""TensorRT as it is installed: the data-centre library, or TensorRT for RTX.

Both have one Python API. `tensorrt` brings its libraries along. TensorRT for RTX is found as

- `tensorrt_rtx`, the vendor's own package, which brings its libraries along;
- `tensorrt_rtx_bindings`, which does not: they come out of `onnxruntime-ep-nv-tensorrt-rtx-cu13`,
  an execution provider that carries the same ones, and are loaded before it, in order.
"""

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from provider_core import ConfigurationError

LibraryName = Literal["tensorrt", "tensorrt_rtx"]
RTX_LIBRARIES = ("libcudart.so.13*", "libtensorrt_rtx.so.*", "libtensorrt_onnxparser_rtx.so.*")
"""What the bindings need, each before those that need it."""

RTX_LIBRARY_PACKAGE = "onnxruntime_ep_nv_tensorrt_rtx"
INSTALL_COMMAND = 'pip install "provider-core[tensorrt-rtx]"'
DATA_CENTRE_INSTALL_COMMAND = 'pip install "provider-core[tensorrt]"'
DATA_CENTRE_CAPABILITIES = frozenset({"9.0", "10.0", "10.3"})
"""Of Hopper and of data-centre Blackwell, which TensorRT for RTX does not build for."""

PACKAGES = ("cuda.bindings", "onnx")
"""What running and building take beside a library; both extras bring them."""

COMPUTE_CAPABILITY_MAJOR, COMPUTE_CAPABILITY_MINOR = 75, 76  # CUdevice_attribute


@dataclass(frozen=True, slots=True)
class TensorRt:
    """An installed library.

    Attributes:
        version: Engines fit no other.
        module: Its Python API.
    """

    name: LibraryName
    version: str
    module: Any  # neither package has types that a checker could read without it

    @property
    def builds_anywhere(self) -> bool:
        """Whether it builds engines without a GPU, and for other GPUs than the one that is here."""
        return self.name == "tensorrt_rtx"


def is_installed() -> bool:
    """Whether any package of either library is there; it may still not load."""
    return any(find_spec(name) for name in ("tensorrt", "tensorrt_rtx", "tensorrt_rtx_bindings"))


def choose_install_command(compute_capability: str | None) -> str:
    """The command that installs the library for a GPU; that for RTX if there is none."""
    if compute_capability in DATA_CENTRE_CAPABILITIES:
        return DATA_CENTRE_INSTALL_COMMAND
    return INSTALL_COMMAND


def list_missing_packages() -> list[str]:
    """Of `PACKAGES`, those that are not installed."""
    return [name for name in PACKAGES if not _is_there(name)]


def find_library(name: LibraryName | None = None) -> TensorRt:
    """Load TensorRT.

    Args:
        name: Which; `None` takes the data-centre library if it is installed, or else that for RTX.

    Raises:
        ConfigurationError: It is not installed, or does not load; with the command that helps.
    """
    if name is None:
        name = "tensorrt" if find_spec("tensorrt") else "tensorrt_rtx"
    if name == "tensorrt" and not find_spec(name):
        raise ConfigurationError(f"TensorRT is not installed; run: {DATA_CENTRE_INSTALL_COMMAND}")
    module = _import_rtx() if name == "tensorrt_rtx" else _import(name)
    return TensorRt(name, str(module.__version__), module)


def find_capability(device_id: int = 0) -> str | None:
    """The compute capability of a GPU, such as `8.9`; `None` if there is none or no driver.

    Asked of the driver (`cuDeviceGetAttribute` of the CUDA driver API), which needs no package.
    """
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None
    device, numbers = ctypes.c_int(), (ctypes.c_int(), ctypes.c_int())
    if driver.cuInit(0) or driver.cuDeviceGet(ctypes.byref(device), device_id):
        return None
    attributes = (COMPUTE_CAPABILITY_MAJOR, COMPUTE_CAPABILITY_MINOR)
    for number, attribute in zip(numbers, attributes, strict=True):
        if driver.cuDeviceGetAttribute(ctypes.byref(number), attribute, device):
            return None
    return ".".join(str(number.value) for number in numbers)


def list_capabilities(library: TensorRt) -> list[str]:
    """Compute capabilities that TensorRT for RTX builds for, oldest first."""
    names = (str(name) for name in library.module.ComputeCapability.__members__)
    numbers = sorted(int(name.removeprefix("SM")) for name in names if name.startswith("SM"))
    return [f"{number // 10}.{number % 10}" for number in numbers]


def _is_there(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ModuleNotFoundError:  # the package that it is in
        return False


def _import_rtx() -> Any:  # as `TensorRt.module`
    if find_spec("tensorrt_rtx"):
        return _import("tensorrt_rtx")
    if not find_spec("tensorrt_rtx_bindings"):
        raise ConfigurationError(f"TensorRT is not installed; run: {INSTALL_COMMAND}")
    _load_shared_libraries(_library_folders())
    return _import("tensorrt_rtx_bindings")


def _library_folders() -> Sequence[Path]:
    spec = find_spec(RTX_LIBRARY_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise ConfigurationError(
            f"the libraries of TensorRT for RTX are not installed; run: {INSTALL_COMMAND}"
        )
    return [Path(folder) for folder in spec.submodule_search_locations]


def _load_shared_libraries(folders: Sequence[Path]) -> None:
    """Load what the bindings are linked to, visible to what is loaded later."""
    for pattern in RTX_LIBRARIES:
        path = next((path for folder in folders for path in sorted(folder.rglob(pattern))), None)
        if path is None:
            raise ConfigurationError(
                f"{RTX_LIBRARY_PACKAGE} lacks {pattern}; run: {INSTALL_COMMAND} --force-reinstall"
            )
        try:
            ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL)
        except OSError as error:
            raise ConfigurationError(f"{path} does not load: {error}") from error


def _import(name: str) -> Any:  # as `TensorRt.module`
    try:
        return import_module(name)
    except ImportError as error:
        raise ConfigurationError(f"{name} does not load: {error}") from error
