"""Slots on a GPU: what is asked of the CUDA runtime, scripted over the host's memory.

Work is done when somebody waits for it, and not before; `tests/gpu` runs it in earnest.
"""

import ctypes
import threading
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest

from provider_core import EngineDead
from provider_core.decoder_io import CacheTensor
from provider_onnxruntime.cuda_kv_pool import CudaKvPool
from tests.scripted_cuda import ScriptedRuntime, script_memory

DEVICE_ID = 1
INVALID_VALUE = 1  # cudaError_t
CACHES = [CacheTensor("past", "present", 2, 4)]


@pytest.fixture
def runtime(monkeypatch: pytest.MonkeyPatch) -> ScriptedRuntime:
    """In the place of the library; values lie in the host's memory."""
    runtime = ScriptedRuntime(DEVICE_ID)
    script_memory(runtime, monkeypatch)
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
    """It takes the next position, too, and what lies behind that is untouched."""
    pool, memory = make_pool()
    on_another_thread(lambda: pool.clear(2, 3))
    assert not memory[2, :, :4].any()
    assert memory[2, :, 4:].all()
    assert not runtime.status


def test_a_fill_ends_with_the_slot(runtime: ScriptedRuntime) -> None:
    """A text may be as long as that."""
    pool, memory = make_pool()
    memory[1] = 1
    pool.clear(1, 8)
    assert not memory[1].any()
    assert memory[2].all()
    assert not runtime.status


def test_what_comes_next_in_a_slot_may_be_overwritten(runtime: ScriptedRuntime) -> None:
    """Behind what was written or moved there; in a full slot it is the last position."""
    pool, _ = make_pool()
    assert pool.ends.free_positions(0, 3).tolist() == [0, 0, 0]
    pool.ends.note(1, [5, 8])
    assert pool.ends.free_positions(0, 3).tolist() == [0, 5, 7]
    pool.move(2, 0, 3)
    assert pool.ends.free_positions(0, 2).tolist() == [3, 5]
    assert not runtime.status


def test_an_error_of_what_was_queued_ends_the_engine(runtime: ScriptedRuntime) -> None:
    """It comes to light where somebody waits."""
    pool, _ = make_pool()
    runtime.status = INVALID_VALUE
    with pytest.raises(EngineDead, match=r"could not move a slot \(CUDA error 1\)"):
        pool.move(2, 0, 5)
