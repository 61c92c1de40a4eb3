"""TensorRT for RTX as an execution provider: a library of its own that ONNX Runtime loads.

As its maker's installation page has it: the package names the provider and its library, the library
is registered once in a process, and a session takes one of the devices it then offers.

It compiles kernels for the GPU that it finds, and can keep them in a folder: it reads them when
a session is made, writes them when the session goes, and takes none that are damaged or were
compiled for something else. Kernels are code: the folder is ours alone, or it is not used. It
writes files as the umask has it, and nobody who may not enter the folder can write to them.
"""

import os
import shutil
import stat
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from threading import Lock
from typing import Any

import onnxruntime as ort
import structlog

from provider_core import ConfigurationError
from provider_core.owned_files import check_owned_folder, make_owned_folder
from provider_onnxruntime.settings import OnnxRuntimeSettings

PACKAGE = "onnxruntime_ep_nv_tensorrt_rtx"
INSTALL_COMMAND = 'pip install "provider-core[onnxruntime,tensorrt-rtx]"'
KERNELS_OPTION, KERNELS_PREFIX = "nv_runtime_cache_path", "kernels-"
MAX_FOLDERS = 8  # four kinds of GPU, before and after an update, say
_registering = Lock()
_registered: set[str] = set()

log = structlog.get_logger()


def add_rtx_provider(
    options: ort.SessionOptions, settings: OnnxRuntimeSettings, path: Path
) -> None:
    """Let a session made with these options run on a GPU by TensorRT for RTX.

    Args:
        options: Of the session.
        settings: Which GPU, and whether and where there is a cache.
        path: Of the model.

    Raises:
        ConfigurationError: The package is not installed or does not load, or there is no such GPU.
    """
    devices, device_id = _find_devices(), settings.device_id
    if device_id >= len(devices):
        raise ConfigurationError(
            f"TensorRT for RTX finds no GPU {device_id} ({len(devices)} found)"
        )
    device, wanted = devices[device_id], {}
    if settings.cache is not False and (folder := _prepare_folder(device, settings, path)):
        wanted[KERNELS_OPTION] = str(folder)
    options.add_provider_for_devices([device], wanted)


def _prepare_folder(
    device: Any,  # ort.OrtEpDevice
    settings: OnnxRuntimeSettings,
    model: Path,
) -> Path | None:
    """A folder for kernels of a model and a kind of GPU, which nobody else can enter.

    Returns:
        None if there can be none: it is read-only, or somebody else's.
    """
    # No other provider's.
    from provider_onnxruntime.optimise.cache import CACHE_FOLDER, make_key  # noqa: PLC0415

    root = model.parent / CACHE_FOLDER
    if settings.cache_dir is not None:
        root = settings.cache_dir / make_key({"path": str(model.resolve())})
    compiled_for = {
        "model": model.name,
        "onnxruntime": ort.__version__,
        "provider": str(import_module(PACKAGE).__version__),
        "metadata": dict(device.ep_metadata),
        "gpu": [device.device.vendor_id, device.device.device_id],
    }
    folder = root / f"{KERNELS_PREFIX}{make_key(compiled_for)}"
    try:
        make_owned_folder(root)
        if folder.is_dir() and not _is_private(folder):
            log.warning("kernels.dropped", folder=str(folder), reason="others can enter it")
            shutil.rmtree(folder)
        folder.mkdir(mode=0o700, exist_ok=True)
        check_owned_folder(folder)
        os.utime(folder)  # the newest, for `_drop_oldest`; and we can only if we may write there
    except OSError as error:
        log.info("kernels.not_kept", folder=str(folder), reason=str(error))
        return None
    _drop_oldest(root)
    return folder


def _is_private(folder: Path) -> bool:
    """Whether nobody else may look into a folder, where permissions are POSIX's."""
    return os.name != "posix" or not folder.lstat().st_mode & (stat.S_IRWXG | stat.S_IRWXO)


def _drop_oldest(root: Path) -> None:
    """Leave the folders used last; versions of the library and drivers come and go."""
    folders = []
    for folder in root.glob(f"{KERNELS_PREFIX}*"):
        with suppress(OSError):  # another server drops it now
            folders.append((folder.lstat().st_mtime, folder))
    for _, folder in sorted(folders)[:-MAX_FOLDERS]:
        shutil.rmtree(folder, ignore_errors=True)


def _find_devices() -> list[Any]:  # ort.OrtEpDevice, which has no type that a checker could read
    """The devices that the provider offers, once it is registered."""
    try:
        package = import_module(PACKAGE)
        name = package.get_ep_name()
        with _registering:
            if name not in _registered:
                ort.register_execution_provider_library(name, package.get_library_path())
                _registered.add(name)
    except ImportError as error:
        raise ConfigurationError(
            f"the execution provider of TensorRT for RTX is not installed; run: {INSTALL_COMMAND}"
        ) from error
    except Exception as error:  # the runtime raises a class of its own per status code
        raise ConfigurationError(
            f"the execution provider of TensorRT for RTX does not load: {error}"
        ) from error
    return [device for device in ort.get_ep_devices() if device.ep_name == name]
