"""Sessions with the options that measured best, on the provider that was asked for and no other."""

import os
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from threading import Lock

import onnxruntime as ort

from provider_core import ConfigurationError
from provider_onnxruntime.rtx_provider import add_rtx_provider
from provider_onnxruntime.settings import OnnxRuntimeSettings

PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt_rtx": "NvTensorRTRTXExecutionProvider",
}
CACHE_DIMENSION = "max_sequence_length"
"""Of caches that `provider export` writes; TensorRT takes none whose length is open."""

ENABLE_GRAPHS = "enable_cuda_graph"  # option of the provider
RECORD_ASSIGNMENT = "session.record_ep_graph_assignment_info"
PARALLEL_PACKING = "session.prepack.enable_parallel"
LOG_ERRORS = 3  # ONNX Runtime's severity
MAX_SERIAL_THREADS = 2
MAX_SERIAL_BYTES = 2**30
"""Up to so many, weights are packed by one thread: another imports the server meanwhile."""

NO_FLASH_ATTENTION = "ORT_GQA_DISABLE_FLASH_ATTENTION"  # read when a session is made
_environment = Lock()


def open_session(
    path: Path,
    settings: OnnxRuntimeSettings,
    *,
    is_optimised: bool = False,
    save_as: Path | None = None,
    max_model_len: int | None = None,
    captures_graphs: bool = False,
) -> ort.InferenceSession:
    """Load a model file.

    Args:
        path: The file.
        settings: How to run it.
        is_optimised: It was saved by a session: there is nothing left to optimise.
        save_as: Save what is run there, weights beside it, in the layout that kernels want.
        max_model_len: Of caches that are written in place, for a provider that must know it.
        captures_graphs: Let runs on CUDA be captured; a graph that cannot be is refused.

    Raises:
        ConfigurationError: The provider is not installed or did not take the model, or left to the
            CPU what it was wanted for, or the file is not a model that this runtime can run.
    """
    provider = PROVIDERS[settings.provider]
    is_plugin = settings.provider == "tensorrt_rtx"  # registered when it is needed
    if not is_plugin and provider not in ort.get_available_providers():
        raise ConfigurationError(
            f"onnxruntime {ort.__version__} here has no {provider}; install the extra "
            "[onnxruntime-gpu] in place of [onnxruntime]"
        )
    options = session_options(settings)
    if settings.provider != "cpu":
        options.add_session_config_entry(RECORD_ASSIGNMENT, "1")
    if is_plugin:
        add_rtx_provider(options, settings, path)
        if max_model_len is not None:
            options.add_free_dimension_override_by_name(CACHE_DIMENSION, max_model_len)
    try:
        is_serial = settings.intra_op_num_threads <= MAX_SERIAL_THREADS
        packs_in_parallel = not is_serial or _size(path) > MAX_SERIAL_BYTES
        options.add_session_config_entry(PARALLEL_PACKING, str(int(packs_in_parallel)))
        if is_optimised:
            options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        if save_as is not None:
            _save(options, save_as)
        make = partial(
            ort.InferenceSession,
            str(path),
            options,
            providers=None
            if is_plugin
            else _list_providers(settings, captures_graphs=captures_graphs),
            enable_fallback=0,  # to the CPU, with a line on stdout
        )
        with _choose_attention(settings):
            session = make() if settings.provider == "cpu" else _open_on_gpu(make)
    except Exception as error:  # the runtime raises a class of its own per status code
        raise ConfigurationError(f"onnxruntime cannot load {path}: {error}") from error
    if settings.provider != "cpu":
        _check_assignment(session, provider)
    return session


def _size(path: Path) -> int:
    """Bytes of a graph and of all that lies beside it, which are its weights."""
    return sum(file.stat().st_size for file in path.parent.iterdir() if file.is_file())


def _list_providers(
    settings: OnnxRuntimeSettings, *, captures_graphs: bool
) -> list[tuple[str, dict[str, str]]]:
    """What runs nodes, the first that can, and its options."""
    on_host: tuple[str, dict[str, str]] = (PROVIDERS["cpu"], {})
    if settings.provider == "cpu":
        return [on_host]
    ort.preload_dlls()  # CUDA and cuDNN where pip put them
    wanted = {"device_id": str(settings.device_id)}
    if captures_graphs:
        wanted[ENABLE_GRAPHS] = "1"
    return [(PROVIDERS[settings.provider], wanted), on_host]


def _open_on_gpu(make: Callable[[], ort.InferenceSession]) -> ort.InferenceSession:
    from provider_core.gpu_models import GPU_MODELS  # noqa: PLC0415 - none on a CPU

    return GPU_MODELS.open(make)


def session_options(settings: OnnxRuntimeSettings) -> ort.SessionOptions:
    """Options of every session.

    Memory patterns are off because each batch size and chunk length would keep one.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = settings.intra_op_num_threads
    options.inter_op_num_threads = 1
    options.enable_mem_pattern = False
    options.log_severity_level = LOG_ERRORS
    spins = settings.spin_duration_us > 0
    options.add_session_config_entry("session.intra_op.allow_spinning", "1" if spins else "0")
    if spins:
        options.add_session_config_entry(
            "session.intra_op.spin_duration_us", str(settings.spin_duration_us)
        )
    return options


def _check_assignment(session: ort.InferenceSession, provider: str) -> None:
    """Refuse a session that leaves a decoder's work to the CPU, as ONNX Runtime does silently.

    It does so without a GPU, and for every node that the provider has no kernel for. Nodes that
    compute shapes or positions belong there, a `MatMul` of rotary frequencies among them, so that
    some matrices may be multiplied on the CPU, but not most.

    Raises:
        ConfigurationError: The provider took nothing, or not attention, or not most matrices.
    """
    registered = session.get_providers()
    if registered[0] != provider:
        raise ConfigurationError(
            f"{provider} was asked for and the session runs on {', '.join(registered)}: is there "
            "a GPU, and the CUDA version that this onnxruntime wants?"
        )
    if not hasattr(session, "get_provider_graph_assignment_info"):  # an older onnxruntime
        return
    attention: Counter[str] = Counter()  # nodes by provider
    matrices: Counter[str] = Counter()
    on_cpu: Counter[str] = Counter()  # of both, by operator
    for part in session.get_provider_graph_assignment_info():
        for node in part.get_nodes():
            if "Attention" in node.op_type:
                attention[part.ep_name] += 1
            elif "MatMul" in node.op_type or node.op_type == "Gemm":
                matrices[part.ep_name] += 1
            else:
                continue
            if part.ep_name != provider:
                on_cpu[node.op_type] += 1
    if attention.total() > attention[provider] or matrices.total() > 2 * matrices[provider]:
        nodes = ", ".join(f"{count} {op_type}" for op_type, count in sorted(on_cpu.items()))
        raise ConfigurationError(
            f"{provider} was asked for and leaves {nodes} to the CPU: it has no kernels for them "
            "in their dtypes; export the model in another precision, or ask for the provider cpu"
        )


@contextmanager
def _choose_attention(settings: OnnxRuntimeSettings) -> Iterator[None]:
    """Make sessions with the kernel that is wanted, which only an environment variable can say."""
    if settings.flash_attention is not False:
        yield
        return
    with _environment:
        before = os.environ.get(NO_FLASH_ATTENTION)  # noqa: TID251 - the runtime's, not a setting
        os.environ[NO_FLASH_ATTENTION] = "1"  # noqa: TID251
        try:
            yield
        finally:
            del os.environ[NO_FLASH_ATTENTION]  # noqa: TID251
            if before is not None:
                os.environ[NO_FLASH_ATTENTION] = before  # noqa: TID251


def _save(options: ort.SessionOptions, path: Path) -> None:
    """Have a session write the graph that it runs, and its weights twice: as they are, and packed.

    A session that loads it packs no weights: it maps them, and shares them with other processes.
    """
    options.optimized_model_filepath = str(path)
    for key, value in {
        "optimized_model_external_initializers_file_name": f"{path.name}.data",
        "optimized_model_external_initializers_min_size_in_bytes": "1024",
        "save_external_prepacked_constant_initializers": "1",
    }.items():
        options.add_session_config_entry(f"session.{key}", value)
