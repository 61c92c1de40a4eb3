"""The CPU as a device: executes with ONNX Runtime the graph that engines are built of.

It is slower than the `onnxruntime` backend, which rewrites graphs for the CPU. It is for trying a
TensorRT deployment without a GPU, and it is what the tests run all of the runner's code on: ONNX
Runtime gives the logits that an engine is compared with.
"""

import ctypes
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort

from provider_core import ConfigurationError, EngineDead
from provider_tensorrt.artefact import EngineLimits
from provider_tensorrt.candidate_graph import add_candidates
from provider_tensorrt.decoder_graph import ExportedDecoder, fit_decoder, stored_tensors
from provider_tensorrt.device import DeviceArray, MemoryInfo, Profile

PROVIDER = "CPUExecutionProvider"
DATA_FOLDER = "session.model_external_initializers_file_folder_path"
ACCURACY_LEVEL, FLOAT32 = "session.qdq_matmulnbits_accuracy_level", "1"
"""Quantised weights meet float activations, as in an engine; ONNX Runtime would quantise these."""

LOG_ERRORS = 3  # ONNX Runtime's severity
MEMORY_FILE = Path("/proc/meminfo")


class HostDevice:
    """Runs a decoder on the CPU; everything is done when it is queued.

    Args:
        decoder: As exported.
        limits: What it is to hold.

    Raises:
        ConfigurationError: ONNX Runtime cannot run the decoder, or not at that length.
    """

    name = "cpu"
    runtime_version = f"onnxruntime {ort.__version__}"
    activation_bytes = 0

    def __init__(self, decoder: ExportedDecoder, limits: EngineLimits) -> None:
        files = (decoder.path, *decoder.data_files)
        self.weight_bytes = sum(file.stat().st_size for file in files)
        self._session: ort.InferenceSession | None = _open_session(decoder, limits)
        self._arrays: list[npt.NDArray[Any]] = []

    def memory_info(self) -> MemoryInfo:
        """Of the system, as Linux tells it: what could be had without swapping."""
        values = dict(line.split(":") for line in MEMORY_FILE.read_text().splitlines())
        kib = {name: int(values[name].split()[0]) for name in ("MemAvailable", "MemTotal")}
        return MemoryInfo(kib["MemAvailable"] * 1024, kib["MemTotal"] * 1024)

    def allocate(self, shape: tuple[int, ...], dtype: str) -> DeviceArray:
        """Zeros, which take memory where they are written."""
        try:
            array = np.zeros(shape, dtype)
        except MemoryError as error:
            raise ConfigurationError(f"the system grants no array of {shape} {dtype}") from error
        self._arrays.append(array)
        return DeviceArray(array.ctypes.data, shape, array.dtype)

    def allocate_staging(self, shape: tuple[int, ...], dtype: str) -> npt.NDArray[Any]:
        """Plain memory."""
        return np.zeros(shape, dtype)

    def upload(self, target: DeviceArray, source: npt.NDArray[Any]) -> None:
        """Copy."""
        ctypes.memmove(target.pointer, source.ctypes.data, source.nbytes)

    def download(self, target: npt.NDArray[Any], source: DeviceArray) -> None:
        """Copy."""
        ctypes.memmove(target.ctypes.data, source.pointer, target.nbytes)

    def clear(self, array: DeviceArray) -> None:
        """Write zeros."""
        ctypes.memset(array.pointer, 0, array.num_bytes)

    def copy_rows(
        self,
        target: int,
        source: int,
        *,
        num_rows: int,
        row_bytes: int,
        target_pitch: int,
        source_pitch: int,
    ) -> None:
        """Copy."""
        for row in range(num_rows):
            ctypes.memmove(target + row * target_pitch, source + row * source_pitch, row_bytes)

    def make_execution(self, profile: Profile) -> "HostExecution":  # noqa: ARG002 - it has but one
        """A way to run the decoder.

        Raises:
            EngineDead: The device is closed.
        """
        if self._session is None:
            raise EngineDead("the device is closed")
        return HostExecution(self._session)

    def keep_kernels(self) -> None:
        """None are compiled."""

    def synchronize(self) -> None:
        """Nothing is ever outstanding."""

    def close(self) -> None:
        """Give all memory back. Idempotent."""
        self._session = None
        self._arrays = []


class HostExecution:
    """Runs a session over arrays where they lie.

    Args:
        session: Of the decoder.
    """

    def __init__(self, session: ort.InferenceSession) -> None:
        self._session = session
        self._inputs = {value.name for value in session.get_inputs()}
        self._binding: ort.IOBinding | None = None
        self._numbers: list[npt.NDArray[np.int64]] = []  # bound, so they must live

    def bind(self, tensors: Mapping[str, DeviceArray], sizes: Mapping[str, int]) -> None:
        """Say where every input and output lies and what shape it has."""
        self._binding = binding = self._session.io_binding()
        self._numbers = [np.array(number, np.int64) for number in sizes.values()]
        for name, number in zip(sizes, self._numbers, strict=True):
            binding.bind_input(name, "cpu", 0, number.dtype, (), number.ctypes.data)
        for name, array in tensors.items():
            bind = binding.bind_input if name in self._inputs else binding.bind_output
            bind(name, "cpu", 0, array.dtype, array.shape, array.pointer)

    def enqueue(self) -> None:
        """Run one step over what is bound."""
        self._session.run_with_iobinding(self._binding)

    def capture(self) -> None:
        """A step is one call already."""

    def close(self) -> None:
        """Let go of what is bound."""
        self._binding = None


def _open_session(decoder: ExportedDecoder, limits: EngineLimits) -> ort.InferenceSession:
    model = fit_decoder(decoder, limits.max_model_len)
    add_candidates(model, decoder.io, limits.num_candidates)
    options = ort.SessionOptions()
    options.inter_op_num_threads = 1
    options.enable_mem_pattern = False  # each shape of step would keep one
    options.log_severity_level = LOG_ERRORS
    options.add_session_config_entry(DATA_FOLDER, str(_follow_links(model, decoder)))
    options.add_session_config_entry(ACCURACY_LEVEL, FLOAT32)
    try:
        return ort.InferenceSession(model.SerializeToString(), options, providers=[PROVIDER])
    except Exception as error:  # the runtime raises a class of its own per status code
        raise ConfigurationError(f"onnxruntime cannot load {decoder.path}: {error}") from error


def _follow_links(model: onnx.ModelProto, decoder: ExportedDecoder) -> Path:
    """The folder of the weights' files; those of huggingface_hub's cache get their real names.

    ONNX Runtime takes no link to a file in another folder than it is given, and but one folder.

    Raises:
        ConfigurationError: Some are links and some are not.
    """
    folder = decoder.path.parent
    if not any(path.is_symlink() for path in decoder.data_files):
        return folder
    folders = {path.resolve().parent for path in decoder.data_files}
    if len(folders) > 1:
        raise ConfigurationError(
            f"the weights of {decoder.path} are links and plain files side by side, which "
            "onnxruntime does not read; copy the model into a folder of plain files"
        )
    for tensor in stored_tensors(model):
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = (folder / entry.value).resolve().name
    return folders.pop()
