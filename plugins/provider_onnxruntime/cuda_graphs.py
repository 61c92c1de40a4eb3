"""Which sessions replay their decodes as CUDA graphs, and when one may be captured.

ONNX Runtime captures what a session queues if the provider option `enable_cuda_graph` is set, the
graph has no control flow, and nothing in it is copied between GPU and host: all operators have
kernels on the GPU, but for arithmetic on shapes. Each value of the run option `gpu_graph_id` is
a graph of its own, for one shape of inputs at the same addresses in every run; -1 captures nothing.
A first run captures by itself: twice as it is, so that memory is there, then for the graph (its
documentation, "Using CUDA Graphs"; `CUDAExecutionProvider::OnRunStart`).
"""

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
