"""The CUDA runtime and TensorRT as `CudaDevice` calls them, over the host's memory.

What is queued on the stream is done when somebody waits for it, and not before, so that memory that
is used too early or too late shows. Executing an engine is running its ONNX graph. Calls and
results have the forms of `cuda.bindings.runtime` and of TensorRT's Python API; only what is called
is here.
"""

import ctypes
import threading
from collections.abc import Callable
from enum import Enum, IntEnum
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

DTYPES = {
    "tensor(float)": np.float32,
    "tensor(int32)": np.int32,
    "tensor(int64)": np.int64,
    "tensor(uint8)": np.uint8,
}
Work = Callable[[], object]


class CudaError(IntEnum):
    """`cudaError_t`."""

    cudaSuccess = 0
    cudaErrorMemoryAllocation = 2
    cudaErrorNoDevice = 100
    cudaErrorIllegalAddress = 700


class ScriptedCuda:
    """`cuda.bindings.runtime`, for two GPUs of which one is used, with one stream.

    Args:
        total_bytes: Of its memory.

    Attributes:
        device_id: Of the GPU that is used.
        name: Of that GPU.
        num_launches: Graphs that were launched.
        arrays: What is allocated, by address.
        pinned: The same, of host memory.
    """

    cudaError_t = CudaError
    cudaMemcpyKind = SimpleNamespace(
        cudaMemcpyHostToDevice=1, cudaMemcpyDeviceToHost=2, cudaMemcpyDeviceToDevice=3
    )
    cudaStreamCaptureMode = SimpleNamespace(cudaStreamCaptureModeThreadLocal=1)
    cudaStreamNonBlocking = 1
    cudaHostAllocDefault = 0

    def __init__(self, total_bytes: int = 2**32) -> None:
        self.total_bytes, self.device_id = total_bytes, 0
        self.name = b"NVIDIA Scripted 1"
        self.num_launches = 0
        self.arrays: dict[int, npt.NDArray[np.uint8]] = {}
        self.pinned: dict[int, npt.NDArray[np.uint8]] = {}
        self._queue: list[Work] = []
        self._captured: list[Work] | None = None
        self._of_thread = threading.local()

    def queue(self, work: Work) -> None:
        """Put work on the stream, or into the graph that is being captured."""
        chosen = getattr(self._of_thread, "device_id", None)
        assert chosen == self.device_id, "cudaSetDevice is a matter of each thread"
        (self._queue if self._captured is None else self._captured).append(work)

    def cudaGetDeviceCount(self) -> tuple[CudaError, int]:
        """Two."""
        return CudaError.cudaSuccess, 2

    def cudaSetDevice(self, device_id: int) -> tuple[CudaError]:
        """For the calling thread."""
        self._of_thread.device_id = device_id
        return (CudaError.cudaSuccess,)

    def cudaGetDeviceProperties(self, device_id: int) -> tuple[CudaError, SimpleNamespace]:
        """`cudaDeviceProp` of the GPU that is used."""
        assert device_id == self.device_id
        return CudaError.cudaSuccess, SimpleNamespace(name=self.name, major=8, minor=9)

    def cudaDriverGetVersion(self) -> tuple[CudaError, int]:
        """Of CUDA, that the driver is for."""
        return CudaError.cudaSuccess, 13000

    def cudaMemGetInfo(self) -> tuple[CudaError, int, int]:
        """Free and total bytes."""
        used = sum(array.nbytes for array in self.arrays.values())
        return CudaError.cudaSuccess, self.total_bytes - used, self.total_bytes

    def cudaMalloc(self, size: int) -> tuple[CudaError, int]:
        """Memory that holds NaN, as far as floats go."""
        if size > self.cudaMemGetInfo()[1]:
            return CudaError.cudaErrorMemoryAllocation, 0
        array = np.full(size, 0xFF, np.uint8)
        self.arrays[array.ctypes.data] = array
        return CudaError.cudaSuccess, array.ctypes.data

    def cudaFree(self, pointer: int) -> tuple[CudaError]:
        """Give it back."""
        del self.arrays[pointer]
        return (CudaError.cudaSuccess,)

    def cudaHostAlloc(self, size: int, _flags: int) -> tuple[CudaError, int]:
        """The same of pinned memory."""
        array = np.full(size, 0xFF, np.uint8)
        self.pinned[array.ctypes.data] = array
        return CudaError.cudaSuccess, array.ctypes.data

    def cudaFreeHost(self, pointer: int) -> tuple[CudaError]:
        """Give it back."""
        del self.pinned[pointer]
        return (CudaError.cudaSuccess,)

    def cudaStreamCreateWithFlags(self, _flags: int) -> tuple[CudaError, int]:
        """Its handle."""
        return CudaError.cudaSuccess, 7

    def cudaStreamDestroy(self, stream: int) -> tuple[CudaError]:
        """Forget it."""
        assert stream == 7
        return (CudaError.cudaSuccess,)

    def cudaStreamSynchronize(self, stream: int) -> tuple[CudaError]:
        """Do all that is queued."""
        assert stream == 7
        assert self._captured is None
        work, self._queue = self._queue, []
        for each in work:
            each()
        return (CudaError.cudaSuccess,)

    def cudaMemcpyAsync(
        self, target: int, source: int, size: int, kind: int, _stream: int
    ) -> tuple[CudaError]:
        """Queue a copy between pinned memory and the device."""
        host, device = (source, target) if kind == 1 else (target, source)
        self._check(self.pinned, host, size)
        self._check(self.arrays, device, size)
        self.queue(lambda: ctypes.memmove(target, source, size))
        return (CudaError.cudaSuccess,)

    def cudaMemcpy2DAsync(
        self,
        target: int,
        target_pitch: int,
        source: int,
        source_pitch: int,
        width: int,
        height: int,
        kind: int,
        _stream: int,
    ) -> tuple[CudaError]:
        """Queue a strided copy within the device."""
        assert kind == 3
        for row in range(height):
            target_row, source_row = target + row * target_pitch, source + row * source_pitch
            for pointer in (target_row, source_row):
                self._check(self.arrays, pointer, width)
            self.queue(partial(ctypes.memmove, target_row, source_row, width))
        return (CudaError.cudaSuccess,)

    def cudaMemsetAsync(
        self, pointer: int, value: int, size: int, _stream: int
    ) -> tuple[CudaError]:
        """Queue a fill."""
        self._check(self.arrays, pointer, size)
        self.queue(lambda: ctypes.memset(pointer, value, size))
        return (CudaError.cudaSuccess,)

    def cudaGetLastError(self) -> tuple[CudaError]:
        """None."""
        return (CudaError.cudaSuccess,)

    def cudaStreamBeginCapture(self, _stream: int, _mode: int) -> tuple[CudaError]:
        """Collect work instead of queueing it."""
        assert self._captured is None
        self._captured = []
        return (CudaError.cudaSuccess,)

    def cudaStreamEndCapture(self, _stream: int) -> tuple[CudaError, list[Work] | None]:
        """What was collected."""
        graph, self._captured = self._captured, None
        return CudaError.cudaSuccess, graph

    def cudaGraphInstantiate(self, graph: Any, _flags: int) -> tuple[CudaError, Any]:
        """It can be launched as it is."""
        return CudaError.cudaSuccess, graph

    def cudaGraphDestroy(self, _graph: Any) -> tuple[CudaError]:
        """Forget it."""
        return (CudaError.cudaSuccess,)

    def cudaGraphExecDestroy(self, _graph: Any) -> tuple[CudaError]:
        """Forget it."""
        return (CudaError.cudaSuccess,)

    def cudaGraphLaunch(self, graph: list[Work], _stream: int) -> tuple[CudaError]:
        """Queue what was collected."""
        self.num_launches += 1
        self._queue += graph
        return (CudaError.cudaSuccess,)

    @staticmethod
    def _check(arrays: dict[int, npt.NDArray[np.uint8]], pointer: int, size: int) -> None:
        """Refuse addresses outside of what is allocated."""
        inside = any(
            start <= pointer and pointer + size <= start + array.nbytes
            for start, array in arrays.items()
        )
        assert inside, "an address outside of all arrays"


class ScriptedTensorRt:
    """The module `tensorrt`; an engine is bytes that a function turns into a session.

    Args:
        cuda: Where steps are queued.
        open_session: Makes one of an engine.
    """

    __name__, __version__ = "tensorrt", "0.0.scripted"
    ExecutionContextAllocationStrategy = SimpleNamespace(USER_MANAGED="user managed")
    TensorIOMode = Enum("TensorIOMode", ["INPUT", "OUTPUT"])

    class ILogger:
        """`tensorrt.ILogger`."""

        INTERNAL_ERROR, ERROR, WARNING = range(3)

        def log(self, severity: int, msg: str) -> None:
            """Take a message."""
            raise NotImplementedError

    def __init__(
        self, cuda: ScriptedCuda, open_session: Callable[[bytes], ort.InferenceSession]
    ) -> None:
        self._cuda, self._open_session = cuda, open_session

    def Runtime(self, logger: ILogger) -> Any:
        """`tensorrt.Runtime`."""

        def deserialize(engine: bytes) -> ScriptedEngine | None:
            if not engine:
                logger.log(self.ILogger.ERROR, "the engine is empty")
                return None
            return ScriptedEngine(self._cuda, self._open_session(engine))

        return SimpleNamespace(deserialize_cuda_engine=deserialize)


class ScriptedEngine:
    """`ICudaEngine`."""

    device_memory_size_v2 = 4096

    def __init__(self, cuda: ScriptedCuda, session: ort.InferenceSession) -> None:
        self.cuda, self.session = cuda, session
        self.inputs = {value.name for value in session.get_inputs()}
        self.outputs = {value.name for value in session.get_outputs()}
        self.types: dict[str, str] = {v.name: v.type for v in session.get_inputs()}
        self.types |= {v.name: v.type for v in session.get_outputs()}

    def create_runtime_config(self) -> Any:
        """`IRuntimeConfig` of the data-centre library."""
        return SimpleNamespace(set_execution_context_allocation_strategy=lambda _strategy: None)

    def create_execution_context(self, _config: Any) -> "ScriptedContext":
        """`IExecutionContext`."""
        return ScriptedContext(self)

    @property
    def num_io_tensors(self) -> int:
        """Inputs and outputs together."""
        return len(self.types)

    def get_tensor_name(self, index: int) -> str:
        """Of one of them."""
        return list(self.types)[index]

    def get_tensor_mode(self, name: str) -> Enum:
        """Whether it goes in or out."""
        modes = ScriptedTensorRt.TensorIOMode
        return modes["INPUT"] if name in self.inputs else modes["OUTPUT"]


class ScriptedContext:
    """`IExecutionContext`: has shapes of inputs, and addresses of all tensors."""

    def __init__(self, engine: ScriptedEngine) -> None:
        self.engine = engine
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._addresses: dict[str, int] = {}
        self._is_ready = {"memory": False, "profile": False}

    def set_device_memory(self, memory: int, size: int) -> None:
        """What it works in."""
        assert size == ScriptedEngine.device_memory_size_v2
        self.engine.cuda._check(self.engine.cuda.arrays, memory, size)
        self._is_ready["memory"] = True

    def set_optimization_profile_async(self, index: int, stream: int) -> bool:
        """Prefill or decode."""
        assert (index in {0, 1}, stream) == (True, 7)
        self._is_ready["profile"] = True
        return True

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        """Before an address counts."""
        self._shapes[name] = tuple(shape)
        return name in self.engine.inputs

    def set_tensor_address(self, name: str, address: int) -> bool:
        """On the device, or on the host for a number that decides shapes."""
        self._addresses[name] = address
        return name in self.engine.inputs | self.engine.outputs

    def execute_async_v3(self, stream: int) -> bool:
        """Queue a run over what is set now."""
        assert stream == 7
        assert all(self._is_ready.values())
        shapes, addresses = dict(self._shapes), dict(self._addresses)
        assert set(addresses) == self.engine.inputs | self.engine.outputs
        number = addresses["num_logits_to_keep"]
        num_logits = int(ctypes.c_int64.from_address(number).value)
        self.engine.cuda.queue(lambda: self._run(shapes, addresses, num_logits))
        return True

    def _run(
        self, shapes: dict[str, tuple[int, ...]], addresses: dict[str, int], num_logits: int
    ) -> None:
        engine = self.engine
        binding = engine.session.io_binding()
        scalar = np.array(num_logits, np.int64)
        for name in engine.inputs:
            shape, address = shapes.get(name, ()), addresses[name]
            if name == "num_logits_to_keep":
                address = scalar.ctypes.data
            binding.bind_input(name, "cpu", 0, DTYPES[engine.types[name]], shape, address)
        rows = shapes["input_ids"][0]
        for value in engine.session.get_outputs():
            past = shapes.get(value.name.replace("present.", "past_key_values."))
            shape = (rows, num_logits, value.shape[2]) if past is None else past
            dtype = DTYPES[value.type]
            binding.bind_output(value.name, "cpu", 0, dtype, shape, addresses[value.name])
        engine.session.run_with_iobinding(binding)
