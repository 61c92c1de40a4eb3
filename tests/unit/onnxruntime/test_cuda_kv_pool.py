"""Slots on a GPU: what is asked of the CUDA runtime, scripted over the host's memory.

Work is done when somebody waits for it, and not before; `tests/gpu` runs it in earnest.
"""

import ctypes
import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
import pytest

from provider_core import EngineDead
from provider_core.decoder_io import CacheTensor
from provider_onnxruntime import cuda_kv_pool
from provider_onnxruntime.cuda_kv_pool import CudaKvPool

DEVICE_ID = 1
INVALID_VALUE = 1  # cudaError_t
CACHES = [CacheTensor("past", "present", 2, 4)]


class ScriptedRuntime:
    """The CUDA runtime library, for two GPUs."""

    def __init__(self) -> None:
        self.status = 0
        self._of_thread = threading.local()
        self._queue: list[Callable[[], object]] = []
        self.library = SimpleNamespace(
            cudaSetDevice=self.set_device,
            cudaMemcpy2D=self.copy_rows,
            cudaMemset2D=self.fill_rows,
            cudaStreamSynchronize=self.synchronize,
        )

    def set_device(self, device_id: ctypes.c_int) -> int:
        """For the calling thread."""
        self._of_thread.device_id = device_id.value
        return 0

    def copy_rows(self, *arguments: Any) -> int:
        """Queue a strided copy within the device."""
        target, target_pitch, source, source_pitch, width, height, kind = (
            argument.value for argument in arguments
        )
        assert kind == cuda_kv_pool.DEVICE_TO_DEVICE

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

    def synchronize(self, stream: ctypes.c_void_p) -> int:
        """Do what is queued."""
        assert stream.value is None  # the default stream
        work, self._queue = self._queue, []
        for each in work:
            each()
        return self.status

    def _add(self, work: Callable[[], object]) -> int:
        assert getattr(self._of_thread, "device_id", 0) == DEVICE_ID
        self._queue.append(work)
        return 0


@pytest.fixture
def runtime(monkeypatch: pytest.MonkeyPatch) -> ScriptedRuntime:
    """In the place of the library; values lie in the host's memory."""
    runtime = ScriptedRuntime()
    on_host = ort.OrtValue.ortvalue_from_numpy
    monkeypatch.setattr(cuda_kv_pool, "_load_runtime", lambda: runtime.library)
    monkeypatch.setattr(
        ort.OrtValue, "ortvalue_from_numpy", lambda array, _kind, _device_id: on_host(array)
    )
    return runtime


def make_pool() -> tuple[CudaKvPool, npt.NDArray[np.float32]]:
    """Three slots of eight positions, and their memory, of which slot 2 holds numbers."""
    pool = CudaKvPool(CACHES, "float32", 3, 8, DEVICE_ID)
    array: npt.NDArray[np.float32] = pool._values[0].numpy()
    memory = np.ctypeslib.as_array(
        (ctypes.c_float * array.size).from_address(pool._values[0].data_ptr())
    ).reshape(array.shape)
    memory[2] = 1 + np.arange(2 * 8 * 4).reshape(2, 8, 4)
    return pool, memory


def on_another_thread(function: Callable[[], object]) -> None:
    """Run it on a thread that has not chosen a GPU, as the engine's has not."""
    thread = threading.Thread(target=function)
    thread.start()
    thread.join()


def test_a_move_has_ended_when_it_returns(runtime: ScriptedRuntime) -> None:
    """On the pool's GPU: a decode on a stream of its own would read what is not there yet."""
    pool, memory = make_pool()
    on_another_thread(lambda: pool.move(2, 0, 5))
    np.testing.assert_array_equal(memory[0, :, :5], memory[2, :, :5])
    assert not memory[0, :, 5:].any()
    assert not runtime.status


def test_so_has_a_fill(runtime: ScriptedRuntime) -> None:
    """And what lies behind it is untouched."""
    pool, memory = make_pool()
    on_another_thread(lambda: pool.clear(2, 3))
    assert not memory[2, :, :3].any()
    assert memory[2, :, 3:].all()
    assert not runtime.status


def test_an_error_of_what_was_queued_ends_the_engine(runtime: ScriptedRuntime) -> None:
    """It comes to light where somebody waits."""
    pool, _ = make_pool()
    runtime.status = INVALID_VALUE
    with pytest.raises(EngineDead, match=r"could not move a slot \(CUDA error 1\)"):
        pool.move(2, 0, 5)
