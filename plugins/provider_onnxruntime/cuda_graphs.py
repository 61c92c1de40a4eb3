"""Which sessions replay their decodes as CUDA graphs, and when one may be captured.

ONNX Runtime captures what a session queues if the provider option `enable_cuda_graph` is set, the
graph has no control flow, and nothing in it is copied between GPU and host: all operators have
kernels on the GPU, but for arithmetic on shapes. Each value of the run option `gpu_graph_id` is
a graph of its own, for one shape of inputs at the same addresses in every run; -1 captures nothing.
A first run captures by itself: twice as it is, so that memory is there, then for the graph (its
documentation, "Using CUDA Graphs"; `CUDAExecutionProvider::OnRunStart`).
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock
from weakref import WeakSet

import onnxruntime as ort
import structlog

from provider_core import ConfigurationError
from provider_core.decoder_io import DecoderIO
from provider_onnxruntime.model_folder import DecoderFile
from provider_onnxruntime.session import open_session
from provider_onnxruntime.settings import OnnxRuntimeSettings

GRAPH_ID, NO_GRAPH = "gpu_graph_id", -1

log = structlog.get_logger()


def why_not(io: DecoderIO, provider: str) -> str | None:
    """Why a decoder's steps cannot be captured; `None` if nothing is known to be in the way."""
    if provider != "cuda":
        return f"only the provider cuda is captured, not {provider}"
    if io.convention == "optimum":
        return "the decoder's caches grow, so that every step has other shapes"
    if io.batch_size is not None:
        return "the decoder takes one row at a time"
    return None


def open_for_graphs(
    decoder: DecoderFile, settings: OnnxRuntimeSettings, max_model_len: int
) -> ort.InferenceSession | None:
    """A session whose decodes can be captured.

    Returns:
        None if there can be none, which is logged where a GPU would have had use for it.

    Raises:
        ConfigurationError: There can be none, and the settings demand it.
    """
    if settings.cuda_graphs == "off":
        return None
    reason = why_not(decoder.io, settings.provider)
    if reason is None:
        try:
            return open_session(
                decoder.path, settings, max_model_len=max_model_len, captures_graphs=True
            )
        except ConfigurationError as error:
            reason = error.message
    if settings.cuda_graphs == "on":
        raise ConfigurationError(f"cuda_graphs is on, and steps cannot be captured: {reason}")
    log.info("graphs.unavailable", model=decoder.folder.name, reason=reason)
    return None


def make_run_options(graph_id: int) -> ort.RunOptions:
    """Options of a run that is a graph of its own, or with `NO_GRAPH` none."""
    options = ort.RunOptions()
    options.add_run_config_entry(GRAPH_ID, str(graph_id))
    return options


class GpuSessions:
    """The sessions on GPUs of a process: one captures only while there is no other.

    While CUDA captures for ONNX Runtime, calls of any thread that might wait for a GPU fail, and
    end the capture (`cudaStreamCaptureModeGlobal`): other models would fail in the middle of
    a step. Replays harm nobody.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._open: WeakSet[ort.InferenceSession] = WeakSet()
        self._num_opening = 0

    def open(self, make: Callable[[], ort.InferenceSession]) -> ort.InferenceSession:
        """Make a session while nothing is captured, and count it for as long as it lives."""
        with self._lock:
            self._num_opening += 1
        try:
            session = make()
            self._open.add(session)
            return session
        finally:
            with self._lock:
                self._num_opening -= 1

    @contextmanager
    def capturing(self) -> Iterator[bool]:
        """Let no session be opened meanwhile. Yields whether there is but one: else capture not."""
        with self._lock:
            yield len(self._open) + self._num_opening == 1


SESSIONS = GpuSessions()
"""Of this process."""
