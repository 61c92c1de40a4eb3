"""An NVIDIA GPU as a device: memory and copies by the CUDA runtime, execution by TensorRT.

Nothing here runs without a GPU. Calls are those of NVIDIA's CUDA Python (`cuda.bindings.runtime`)
and of TensorRT's Python API, which TensorRT for RTX has under another module name. What differs is
who captures CUDA graphs: TensorRT leaves it to us, TensorRT for RTX does it by itself, because it
swaps kernels while it runs (its guide, "Working with RTX CUDA Graphs").
"""

import ctypes
from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt
import structlog
from cuda.bindings import runtime as cuda

from provider_core import ConfigurationError, EngineDead
from provider_tensorrt.builder import PROFILES
from provider_tensorrt.builder_feedback import make_log
from provider_tensorrt.device import DeviceArray, DeviceMemoryFull, MemoryInfo, Profile
from provider_tensorrt.kernel_cache import KernelCache
from provider_tensorrt.library import TensorRt

log = structlog.get_logger()


class CudaDevice:
    """One GPU with an engine loaded.

    Args:
        library: TensorRT as installed.
        engine: Serialised, and checked to be ours: loading an engine runs code in it.
        device_id: Which GPU.
        captures_graphs: Replay decode steps as CUDA graphs.
        kernel_cache: Where kernels that are compiled as the engine runs are kept, if anywhere.

    Raises:
        ConfigurationError: There is no such GPU, its memory is too small, or the library does not
            load the engine on it.
    """

    def __init__(
        self,
        library: TensorRt,
        engine: bytes,
        *,
        device_id: int,
        captures_graphs: bool = True,
        kernel_cache: KernelCache | None = None,
    ) -> None:
        _check_present(device_id)
        self._device_id = device_id
        self._stream: Any = None  # CUDA's handle
        self._enter()
        self.name = f"cuda:{device_id}"
        self.runtime_version = f"{library.name} {library.version}"
        self.weight_bytes = len(engine)
        _check_room(self.weight_bytes, self.memory_info(), self.name)
        self._module, self._captures_graphs = library.module, captures_graphs
        self._allocated: list[int] = []
        self._staging: list[int] = []
        self._stream = _check(cuda.cudaStreamCreateWithFlags(cuda.cudaStreamNonBlocking))
        self._log = make_log(self._module)
        self._runtime = self._module.Runtime(self._log)
        self._engine = self._runtime.deserialize_cuda_engine(engine)
        if self._engine is None:
            raise ConfigurationError(
                f"{self.runtime_version} cannot load the engine on {self.name}: "
                f"{self._log.last_error or 'it does not say why'}"
            )
        names = [self._engine.get_tensor_name(i) for i in range(self._engine.num_io_tensors)]
        input_mode = self._module.TensorIOMode.INPUT
        self._inputs = frozenset(
            name for name in names if self._engine.get_tensor_mode(name) == input_mode
        )
        self.activation_bytes: int = self._engine.device_memory_size_v2
        self._activations: DeviceArray | None = None
        self._kernels: Any = None  # trt.IRuntimeCache
        self._kernel_cache = kernel_cache
        self._environment = ""  # that kernels are compiled for
        self._kept_kernels = b""  # as they are on disk

    def memory_info(self) -> MemoryInfo:
        """Of the GPU, all processes counted."""
        self._enter()
        free_bytes, total_bytes = _check(cuda.cudaMemGetInfo())
        return MemoryInfo(free_bytes, total_bytes)

    def allocate(self, shape: tuple[int, ...], dtype: str) -> DeviceArray:
        """Zeros."""
        self._enter()
        array_dtype = np.dtype(dtype)
        num_bytes = max(prod(shape) * array_dtype.itemsize, 1)
        error, pointer = cuda.cudaMalloc(num_bytes)
        if error != cuda.cudaError_t.cudaSuccess:
            raise ConfigurationError(
                f"{self.name} grants no {num_bytes / 2**20:.0f} MiB ({error.name}); "
                f"{self.memory_info().free_bytes / 2**20:.0f} MiB are free"
            )
        self._allocated.append(pointer)
        array = DeviceArray(pointer, shape, array_dtype)
        self.clear(array)
        return array

    def allocate_staging(self, shape: tuple[int, ...], dtype: str) -> npt.NDArray[Any]:
        """Pinned memory: only from and to such are copies asynchronous."""
        self._enter()
        num_bytes = prod(shape) * np.dtype(dtype).itemsize
        pointer = _check(cuda.cudaHostAlloc(num_bytes, cuda.cudaHostAllocDefault))
        self._staging.append(pointer)
        memory = np.ctypeslib.as_array((ctypes.c_uint8 * num_bytes).from_address(pointer))
        memory[...] = 0
        array: npt.NDArray[Any] = memory.view(dtype).reshape(shape)
        return array

    def upload(self, target: DeviceArray, source: npt.NDArray[Any]) -> None:
        """Queue a copy."""
        self._enter()
        kind = cuda.cudaMemcpyKind.cudaMemcpyHostToDevice
        _check(
            cuda.cudaMemcpyAsync(
                target.pointer, source.ctypes.data, source.nbytes, kind, self._stream
            )
        )

    def download(self, target: npt.NDArray[Any], source: DeviceArray) -> None:
        """Queue a copy."""
        self._enter()
        kind = cuda.cudaMemcpyKind.cudaMemcpyDeviceToHost
        _check(
            cuda.cudaMemcpyAsync(
                target.ctypes.data, source.pointer, target.nbytes, kind, self._stream
            )
        )

    def clear(self, array: DeviceArray) -> None:
        """Queue zeros."""
        self._enter()
        _check(cuda.cudaMemsetAsync(array.pointer, 0, array.num_bytes, self._stream))

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
        """Queue one strided copy."""
        self._enter()
        kind = cuda.cudaMemcpyKind.cudaMemcpyDeviceToDevice
        _check(
            cuda.cudaMemcpy2DAsync(
                target, target_pitch, source, source_pitch, row_bytes, num_rows, kind, self._stream
            )
        )

    def make_execution(self, profile: Profile) -> "CudaExecution":
        """A context over the memory that all contexts work in, one step at a time."""
        if self._engine is None:
            raise EngineDead("the device is closed")
        self._enter()
        if self._activations is None:
            self._activations = self.allocate((self.activation_bytes,), "uint8")
        module = self._module
        config = self._engine.create_runtime_config()
        config.set_execution_context_allocation_strategy(
            module.ExecutionContextAllocationStrategy.USER_MANAGED
        )
        self._share_kernels(config)
        captures = self._captures_graphs and profile == "decode"
        captures_itself = captures and hasattr(module, "CudaGraphStrategy")
        if captures_itself:
            config.cuda_graph_strategy = module.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
        context = self._engine.create_execution_context(config)
        if context is None:
            cuda.cudaGetLastError()  # forgets it: who comes next would take it for their own
            raise DeviceMemoryFull(f"no execution context on {self.name}: is its memory full?")
        context.set_device_memory(self._activations.pointer, self.activation_bytes)
        if not context.set_optimization_profile_async(PROFILES.index(profile), int(self._stream)):
            raise EngineDead(f"the engine has no profile for {profile}")
        return CudaExecution(
            context, self._inputs, self._stream, may_capture=captures and not captures_itself
        )

    def keep_kernels(self) -> None:
        """Have what TensorRT for RTX compiled on disk."""
        if self._kernels is None or self._kernel_cache is None:
            return
        compiled = self._kernels.serialize()
        if compiled is None:  # the library's log says why
            return
        content = bytes(compiled)
        if content != self._kept_kernels:
            self._kernel_cache.write(self._environment, content)
            self._kept_kernels = content

    def synchronize(self) -> None:
        """Wait for the stream."""
        _check(cuda.cudaStreamSynchronize(self._stream))

    def close(self) -> None:
        """Give all memory back, whatever CUDA says to that. Idempotent."""
        if self._engine is None:
            return
        cuda.cudaSetDevice(self._device_id)
        (error,) = cuda.cudaStreamSynchronize(self._stream)
        if error == cuda.cudaError_t.cudaSuccess:
            self.keep_kernels()
        self._engine = self._runtime = self._kernels = None
        for pointer in self._allocated:
            cuda.cudaFree(pointer)
        for pointer in self._staging:
            cuda.cudaFreeHost(pointer)
        self._allocated.clear()
        self._staging.clear()
        cuda.cudaStreamDestroy(self._stream)

    def _share_kernels(
        self,
        config: Any,  # trt.IRuntimeConfig
    ) -> None:
        """Let contexts have one cache of the kernels that TensorRT for RTX compiles where it runs.

        Without it each shape of decode, which has a context of its own, compiles them again.
        """
        if not hasattr(config, "create_runtime_cache"):  # the data-centre library's are final
            return
        if self._kernels is None:
            self._kernels = config.create_runtime_cache()
            self._restore_kernels()
        config.set_runtime_cache(self._kernels)

    def _restore_kernels(self) -> None:
        """Take what an earlier start compiled; the library refuses what was not compiled for us."""
        if self._kernel_cache is None:
            return
        gpu = _check(cuda.cudaGetDeviceProperties(self._device_id))
        driver = _check(cuda.cudaDriverGetVersion())
        self._environment = (
            f"{gpu.name.decode()}, compute capability {gpu.major}.{gpu.minor}, "
            f"driver for CUDA {driver}, {self.runtime_version}"
        )
        kept = self._kernel_cache.read(self._environment)
        if kept is None:
            return
        if self._kernels.deserialize(kept):
            self._kept_kernels = kept
        else:
            log.warning("kernels.refused", device=self.name, reason=self._log.last_error)

    def _enter(self) -> None:
        """Make the GPU the calling thread's: which one it is, CUDA remembers for each thread.

        Nothing here remembers it, because another device may use the thread in between, and a new
        thread may have an old one's identity. A step begins with an upload, so what executes it
        need not ask.
        """
        _check(cuda.cudaSetDevice(self._device_id))


class CudaExecution:
    """An execution context, and the CUDA graph captured of it.

    A graph holds for the shapes and addresses that were bound when it was captured, and for its
    context's state: whoever wants several makes an execution for each (NVIDIA, TensorRT's
    performance guide, "CUDA Graphs").

    Args:
        context: Of the library.
        inputs: Names of the engine's inputs; other tensors are outputs.
        stream: Where steps are queued.
        may_capture: Whether `capture` does anything.
    """

    def __init__(
        self,
        context: Any,  # the library's own class
        inputs: frozenset[str],
        stream: Any,  # CUDA's handle
        *,
        may_capture: bool,
    ) -> None:
        self._context: Any = context
        self._inputs = inputs
        self._stream = stream
        self._may_capture = may_capture
        self._graph: Any = None  # CUDA's handle of what `enqueue` replays
        self._numbers: list[npt.NDArray[np.int64]] = []  # bound, so they must live

    def bind(self, tensors: Mapping[str, DeviceArray], sizes: Mapping[str, int]) -> None:
        """Say where every input and output lies and what shape it has."""
        self._forget_graph()
        self._numbers = [np.array(number, np.int64) for number in sizes.values()]
        for name, number in zip(sizes, self._numbers, strict=True):
            self._set(name, number.ctypes.data)
        for name, array in tensors.items():
            if name in self._inputs and not self._context.set_input_shape(name, array.shape):
                raise EngineDead(f"the engine takes no {name} of shape {array.shape}")
            self._set(name, array.pointer)

    def enqueue(self) -> None:
        """Queue one step, or its graph."""
        if self._graph is not None:
            _check(cuda.cudaGraphLaunch(self._graph, self._stream))
        elif not self._context.execute_async_v3(int(self._stream)):
            raise EngineDead("TensorRT could not queue a step; its log says why")

    def capture(self) -> None:
        """Capture the context's work into a graph, where the library lets us."""
        if not self._may_capture or self._graph is not None:
            return
        mode = cuda.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        _check(cuda.cudaStreamBeginCapture(self._stream, mode))
        is_queued = self._context.execute_async_v3(int(self._stream))
        error, graph = cuda.cudaStreamEndCapture(self._stream)
        success = cuda.cudaError_t.cudaSuccess
        if is_queued and error == success:
            error, self._graph = cuda.cudaGraphInstantiate(graph, 0)
            cuda.cudaGraphDestroy(graph)
        if not is_queued or error != success:
            # Something in the engine cannot be captured, or there is no memory for its graph.
            self._graph, self._may_capture = None, False
            cuda.cudaGetLastError()

    def close(self) -> None:
        """Let go of the graph and the context."""
        self._forget_graph()
        self._context = None

    def _set(self, name: str, address: int) -> None:
        if not self._context.set_tensor_address(name, address):
            raise EngineDead(f"the engine has no tensor {name!r}")

    def _forget_graph(self) -> None:
        if self._graph is not None:
            cuda.cudaGraphExecDestroy(self._graph)  # whatever it says, there is nothing to be done
            self._graph = None


def _check_present(device_id: int) -> None:
    error, count = cuda.cudaGetDeviceCount()
    if error != cuda.cudaError_t.cudaSuccess or device_id >= count:
        found = f"{count} found" if error == cuda.cudaError_t.cudaSuccess else error.name
        raise ConfigurationError(
            f"there is no GPU cuda:{device_id} ({found}); without one set device to host"
        )


def _check_room(weight_bytes: int, memory: MemoryInfo, device: str) -> None:
    if weight_bytes > memory.free_bytes:
        raise ConfigurationError(
            f"the engine takes {weight_bytes / 2**20:.0f} MiB and {device} has "
            f"{memory.free_bytes / 2**20:.0f} MiB free"
        )


def _check(result: Sequence[Any]) -> Any:
    """What a call of the CUDA runtime returned beside its status: a value, several or none.

    Raises:
        EngineDead: It failed. Errors of CUDA stay: no later call of the process would succeed.
    """
    error, *values = result
    if error != cuda.cudaError_t.cudaSuccess:
        raise EngineDead(f"the GPU failed: {error.name}")
    return values[0] if len(values) == 1 else tuple(values)
