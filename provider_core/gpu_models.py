"""What of this process uses a GPU, of whichever backend: some work of one needs it alone.

While CUDA captures for ONNX Runtime, calls of any thread that might wait for a GPU fail, and end
the capture (`cudaStreamCaptureModeGlobal`): other models would fail in the middle of a step.
Replays harm nobody.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock
from typing import TypeVar
from weakref import WeakSet

T = TypeVar("T")


class GpuModels:
    """Counts them; one captures only while there is no other."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._open: WeakSet[object] = WeakSet()
        self._num_opening = 0

    def open(self, make: Callable[[], T]) -> T:
        """Load what uses a GPU while nothing is captured; count it while it lives, or to `leave`.

        Args:
            make: Loads it. What it returns can be referred to weakly.
        """
        with self._lock:
            self._num_opening += 1
        try:
            model = make()
            self._open.add(model)
            return model
        finally:
            with self._lock:
                self._num_opening -= 1

    def leave(self, model: object) -> None:
        """Count one no longer: it has given back all that it had on the GPU."""
        self._open.discard(model)

    @contextmanager
    def capturing(self) -> Iterator[bool]:
        """Let none be loaded meanwhile. Yields whether there is but one: else capture not."""
        with self._lock:
            yield len(self._open) + self._num_opening == 1


GPU_MODELS = GpuModels()
"""Of this process."""
