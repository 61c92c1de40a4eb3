"""TensorRT for RTX as an execution provider: a library of its own that ONNX Runtime loads.

As its maker's installation page has it: the package names the provider and its library, the library
is registered once in a process, and a session takes one of the devices it then offers.
"""

from importlib import import_module
from threading import Lock
from typing import Any

import onnxruntime as ort

from provider_core import ConfigurationError

PACKAGE = "onnxruntime_ep_nv_tensorrt_rtx"
INSTALL_COMMAND = 'pip install "provider-core[onnxruntime,tensorrt-rtx]"'
_registering = Lock()
_registered: set[str] = set()


def add_rtx_provider(options: ort.SessionOptions, device_id: int) -> None:
    """Let sessions made with these options run on a GPU by TensorRT for RTX.

    Raises:
        ConfigurationError: The package is not installed or does not load, or there is no such GPU.
    """
    devices = _find_devices()
    if device_id >= len(devices):
        raise ConfigurationError(
            f"TensorRT for RTX finds no GPU {device_id} ({len(devices)} found)"
        )
    options.add_provider_for_devices([devices[device_id]], {})


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
