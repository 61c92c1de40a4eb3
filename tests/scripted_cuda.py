"""CUDA as the ONNX Runtime backend uses it, over the host's memory.

What is queued is done when somebody waits for it, and not before. Sessions run on the CPU, and
capture as ONNX Runtime does on CUDA: a graph replays what was bound when it was captured, host
values included, and whoever binds memory of the host gets a copy there and then.
"""

import ctypes
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
import pytest

from provider_core import gpu_models
from provider_onnxruntime import cuda_runtime
from provider_onnxruntime.cuda_graphs import GRAPH_ID, NO_GRAPH

CUDA = "CUDAExecutionProvider"
OF_HOST = frozenset({"total_sequence_length", "num_logits_to_keep"})
"""Inputs that kernels and shapes take from the host's memory."""

_Session, _from_numpy = ort.InferenceSession, ort.OrtValue.ortvalue_from_numpy


class ScriptedRuntime:
    """The CUDA runtime library, for a machine with two GPUs of which one is used.

    Args:
        device_id: Of that one.

    Attributes:
        status: What waiting returns.
        memory: Size of each piece of the GPU's memory, by its address.
        pinned: Of the host's that was pinned.
    """

    def __init__(self, device_id: int = 0) -> None:
        self.device_id, self.status = device_id, 0
        self.memory: dict[int, int] = {}
        self.pinned: dict[int, npt.NDArray[np.uint8]] = {}
        self._of_thread = threading.local()
        self._queue: list[Callable[[], object]] = []
        self.library = SimpleNamespace(
            cudaSetDevice=self.set_device,
            cudaMemcpy=self.copy,
            cudaMemcpy2D=self.copy_rows,
            cudaMemset2D=self.fill_rows,
            cudaHostAlloc=self.pin,
            cudaFreeHost=self.unpin,
            cudaStreamSynchronize=self.synchronize,
        )

    def set_device(self, device_id: ctypes.c_int) -> int:
        """For the calling thread."""
        self._of_thread.device_id = device_id.value
        return 0

    def copy(self, *arguments: Any) -> int:
        """To the device, queued; or from it, done when it returns."""
        target, source, size, kind = (argument.value for argument in arguments)
        to_device = kind == cuda_runtime.HOST_TO_DEVICE
        assert to_device or kind == cuda_runtime.DEVICE_TO_HOST
        self.check(target if to_device else source, size)
        self._add(lambda: ctypes.memmove(target, source, size))
        return 0 if to_device else self.synchronize(cuda_runtime.DEFAULT_STREAM)

    def copy_rows(self, *arguments: Any) -> int:
        """Queue a strided copy within the device."""
        target, target_pitch, source, source_pitch, width, height, kind = (
            argument.value for argument in arguments
        )
        assert kind == cuda_runtime.DEVICE_TO_DEVICE

        def copy() -> None:
            for row in range(height):
                ctypes.memmove(target + row * target_pitch, source + row * source_pitch, width)

        return self._add(copy)

    def fill_rows(self, *arguments: Any) -> int:
        """Queue a strided fill."""
        target, pitch, value, width, height = (argument.value for argument in arguments)

        def fill() -> None:
            for row in range(height):
                ctypes.memset(target + row * pitch, value, width)

        return self._add(fill)

    def pin(self, pointer: Any, size: ctypes.c_size_t, _flags: ctypes.c_uint) -> int:
        """Memory of the host."""
        array = np.full(size.value, 0xFF, np.uint8)
        self.pinned[array.ctypes.data] = array
        pointer._obj.value = array.ctypes.data
        return 0

    def unpin(self, pointer: ctypes.c_void_p) -> int:
        """Give it back."""
        assert pointer.value is not None
        del self.pinned[pointer.value]
        return 0

    def synchronize(self, stream: ctypes.c_void_p) -> int:
        """Do what is queued."""
        assert stream.value is None  # the default stream
        work, self._queue = self._queue, []
        for each in work:
            each()
        return self.status

    def allocate(self, array: npt.NDArray[Any]) -> ort.OrtValue:
        """An array in the GPU's memory."""
        self.memory[array.ctypes.data] = array.nbytes
        return _from_numpy(array)

    def check(self, pointer: int, size: int) -> None:
        """Refuse what is not in the GPU's memory."""
        assert any(
            start <= pointer and pointer + size <= start + length
            for start, length in self.memory.items()
        ), "an address outside of the GPU's memory"

    def _add(self, work: Callable[[], object]) -> int:
        assert getattr(self._of_thread, "device_id", 0) == self.device_id
        self._queue.append(work)
        return 0


class ScriptedBinding:
    """`IOBinding` of a session on CUDA: places of inputs and outputs, by name."""

    def __init__(self, runtime: ScriptedRuntime) -> None:
        self._runtime = runtime
        self.inputs: dict[str, tuple[Any, Sequence[int], int]] = {}
        self.outputs: dict[str, tuple[str, Any, Sequence[int], int]] = {}
        self.copies: dict[str, Any] = {}  # of the host's memory, as it was when it was bound

    def bind_input(self, *arguments: Any) -> None:
        """On the GPU where it is; from the host as it is now, unless a kernel reads it there."""
        name, device, _, dtype, shape, pointer = arguments
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        if device == "cuda":
            self._runtime.check(pointer, size)
        elif name not in OF_HOST:
            self.copies[name] = ctypes.create_string_buffer(ctypes.string_at(pointer, size), size)
            pointer = ctypes.addressof(self.copies[name])
        self.inputs[name] = dtype, shape, pointer

    def bind_output(self, *arguments: Any) -> None:
        """Where it shall lie."""
        name, device, _, dtype, shape, pointer = arguments
        if device == "cuda":
            size = int(np.prod(shape)) * np.dtype(dtype).itemsize
            self._runtime.check(pointer, size)
        self.outputs[name] = device, dtype, shape, pointer

    def freeze(self) -> "ScriptedBinding":
        """What a graph keeps: addresses, and values that lie on the host."""
        frozen = ScriptedBinding(self._runtime)
        frozen.inputs, frozen.outputs = dict(self.inputs), dict(self.outputs)
        frozen.copies = dict(self.copies)
        for name in OF_HOST & self.inputs.keys():
            dtype, shape, pointer = self.inputs[name]
            frozen.bind_input(f"copy of {name}", "cpu", 0, dtype, shape, pointer)
            frozen.inputs[name] = frozen.inputs.pop(f"copy of {name}")
        return frozen


@dataclass
class SessionRecord:
    """What became of a session, which does not keep it alive.

    Attributes:
        asked: Options of the provider.
        graph_ids: Of all runs.
        graphs: What was captured, by id, for whichever thread.
    """

    asked: Mapping[str, str]
    graph_ids: list[int] = field(default_factory=list)
    graphs: dict[int, ScriptedBinding] = field(default_factory=dict)

    @property
    def captures(self) -> bool:
        """Whether it was made to."""
        return self.asked.get("enable_cuda_graph") == "1"


class ScriptedSession:
    """A session on CUDA that really runs on the CPU."""

    def __init__(
        self, gpu: "ScriptedGpu", path: str, options: ort.SessionOptions, record: SessionRecord
    ) -> None:
        self._gpu, self._record = gpu, record
        if record.captures and gpu.refusal:
            raise RuntimeError(gpu.refusal)
        self._session = _Session(path, options, providers=["CPUExecutionProvider"])
        self._of_thread = threading.local()

    def get_providers(self) -> list[str]:
        """CUDA first."""
        return [CUDA, "CPUExecutionProvider"]

    def io_binding(self) -> ScriptedBinding:
        """An empty one."""
        return ScriptedBinding(self._gpu.runtime)

    def run(self, *arguments: Any) -> Any:
        """Without bindings, as decoders whose caches grow are run."""
        return self._session.run(*arguments)

    def run_with_iobinding(
        self, binding: ScriptedBinding, options: ort.RunOptions | None = None
    ) -> None:
        """Run, capture or replay."""
        graph_id = int(options.get_run_config_entry(GRAPH_ID)) if options is not None else 0
        graphs = vars(self._of_thread).setdefault("graphs", {})
        self._record.graph_ids.append(graph_id)
        if not self._record.captures or graph_id == NO_GRAPH:
            self._execute(binding)
        elif graph_id in graphs:
            self._execute(graphs[graph_id])
        else:
            assert {device for device, *_ in binding.outputs.values()} == {"cuda"}
            assert gpu_models.GPU_MODELS._lock.locked(), "others may wait for the GPU meanwhile"
            assert graph_id not in self._record.graphs
            if len(self._record.graphs) >= self._gpu.max_graphs:
                raise RuntimeError("operation not permitted when stream is capturing")
            for _ in range(3):
                self._execute(binding)
            graphs[graph_id] = self._record.graphs[graph_id] = binding.freeze()

    def _execute(self, binding: ScriptedBinding) -> None:
        _check_lengths(binding)
        real = self._session.io_binding()
        for name, (dtype, shape, pointer) in binding.inputs.items():
            real.bind_input(name, "cpu", 0, dtype, shape, pointer)
        for name, (_, dtype, shape, pointer) in binding.outputs.items():
            real.bind_output(name, "cpu", 0, dtype, shape, pointer)
        self._session.run_with_iobinding(real)


def _check_lengths(binding: ScriptedBinding) -> None:
    """The longest length holds each row's, which lie on the GPU, as the kernel there relies on."""
    if "total_sequence_length" in binding.inputs:
        _, _, pointer = binding.inputs["total_sequence_length"]
        longest = ctypes.c_int32.from_address(pointer).value
        _, shape, pointer = binding.inputs["seqlens_k"]
        lengths = (ctypes.c_int32 * int(np.prod(shape))).from_address(pointer)
        assert longest > max(lengths)


class ScriptedGpu:
    """A machine with a GPU, and an ONNX Runtime for it.

    Attributes:
        refusal: What making a session that captures fails with.
        max_graphs: Captures that succeed.
        sessions: Records of all that were made, in order.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.runtime = ScriptedRuntime()
        self.refusal, self.max_graphs = "", 1000
        self.sessions: list[SessionRecord] = []
        script_memory(self.runtime, monkeypatch)
        monkeypatch.setattr(gpu_models, "GPU_MODELS", gpu_models.GpuModels())
        monkeypatch.setattr(ort, "get_available_providers", lambda: [CUDA])
        monkeypatch.setattr(ort, "preload_dlls", lambda: None)
        monkeypatch.setattr(ort, "InferenceSession", self._make_session)

    def _make_session(
        self, path: str, options: ort.SessionOptions, *, providers: Any, enable_fallback: int
    ) -> ScriptedSession:
        assert not enable_fallback
        record = SessionRecord(dict(providers)[CUDA])
        session = ScriptedSession(self, path, options, record)
        self.sessions.append(record)
        return session


def script_memory(runtime: ScriptedRuntime, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put the script in the place of the library, and of the GPU's memory."""

    def from_numpy(array: npt.NDArray[Any], kind: str, _device_id: int) -> ort.OrtValue:
        assert kind == "cuda"
        return runtime.allocate(array)

    def from_shape(shape: Sequence[int], dtype: Any, kind: str, _device_id: int) -> ort.OrtValue:
        assert kind == "cuda"
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        return runtime.allocate(np.full(size, 0xFF, np.uint8).view(dtype).reshape(shape))

    monkeypatch.setattr(cuda_runtime, "_load_library", lambda: runtime.library)
    monkeypatch.setattr(ort.OrtValue, "ortvalue_from_numpy", from_numpy)
    monkeypatch.setattr(ort.OrtValue, "ortvalue_from_shape_and_type", from_shape)
