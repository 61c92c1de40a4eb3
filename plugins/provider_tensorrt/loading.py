"""From a model's folder to a runner: the device, what it executes, and what that allows."""

from collections.abc import Callable
from pathlib import Path

from provider_core import ConfigurationError, ModelSpec
from provider_core.decoder_io import DecoderIO
from provider_core.gpu_models import GPU_MODELS
from provider_core.plugin_settings import read_backend_settings
from provider_tensorrt.artefact import (
    DEFAULT_MAX_PREFILL_TOKENS,
    EngineLimits,
    EngineMissing,
    FoundEngine,
    find_engine,
)
from provider_tensorrt.decoder_graph import EXPORT_COMMAND, read_decoder
from provider_tensorrt.device import Device
from provider_tensorrt.kernel_cache import FOLDER, KernelCache
from provider_tensorrt.library import INSTALL_COMMAND, TensorRt, find_capability, find_library
from provider_tensorrt.runner import TensorRtRunner
from provider_tensorrt.settings import TensorRtSettings

LOGITS_DTYPES = frozenset({"float32", "float16"})
CACHE_DTYPES = LOGITS_DTYPES | {"bfloat16"}  # which `onnx` registers with numpy; only copied here
HOST_VERIFY_MARGIN = 0.02
"""Natural-log units, where the host computes in float32. What half precision and engines round
otherwise with several new tokens than with one is not measured: no drafts there, see `RunnerInfo`.
"""


def load_runner(model: ModelSpec, model_dir: Path, report: Callable[[str], None]) -> TensorRtRunner:
    """Load a decoder onto the device that the settings name.

    Args:
        model: With every limit filled in.
        model_dir: Its folder.
        report: Told how far an engine is that has to be built first.

    Raises:
        ConfigurationError: There is no such device, no engine for it, or no room in its memory, or
            the model asks for what this backend does not do.
    """
    settings = read_backend_settings("tensorrt", TensorRtSettings, model.options)
    if settings.device == "host":
        return _load_on_host(model, model_dir, settings)
    return _load_on_gpu(model, model_dir, settings, report)


def _load_on_host(model: ModelSpec, model_dir: Path, settings: TensorRtSettings) -> TensorRtRunner:
    from provider_tensorrt.host_device import HostDevice  # noqa: PLC0415 - a runtime of its own

    decoder = read_decoder(model_dir)
    _check(model, decoder.io, decoder.precision)
    if decoder.io.cache_dtype == "bfloat16":
        raise ConfigurationError(
            "the host device computes no bfloat16; to try it there, export with --activations fp16"
        )
    limits = EngineLimits(
        max_model_len=model.max_model_len,
        max_num_seqs=model.max_num_seqs,
        max_prefill_tokens=DEFAULT_MAX_PREFILL_TOKENS,
    )
    device = HostDevice(decoder, limits)
    return _make_runner(
        device,
        decoder.io,
        limits,
        model,
        precision=decoder.precision,
        settings=settings,
        verify_margin=HOST_VERIFY_MARGIN if decoder.io.cache_dtype == "float32" else None,
    )


def find_or_build_engine(
    model: ModelSpec,
    model_dir: Path,
    settings: TensorRtSettings,
    library: TensorRt,
    compute_capability: str,
    report: Callable[[str], None],
) -> tuple[FoundEngine, bytes]:
    """The engine for this GPU, and its content; one that is missing is built if `model.may_build`.

    So is one that is there and not whole.

    Raises:
        ConfigurationError: There is none, or it cannot be built.
    """

    def find() -> tuple[FoundEngine, bytes]:
        found = find_engine(
            model_dir,
            library=library.name,
            version=library.version,
            compute_capability=compute_capability,
            max_model_len=model.max_model_len,
            max_num_seqs=model.max_num_seqs,
            folder=settings.engine_dir,
            trusted=settings.trusted_engines,
        )
        return found, found.read()

    try:
        return find()
    except EngineMissing:
        if not model.may_build:
            raise
    from provider_tensorrt.building import build_engines  # noqa: PLC0415 - rarely needed

    build_engines(
        model_dir,
        library,
        compute_capabilities=[compute_capability],
        max_model_len=model.max_model_len,
        max_num_seqs=model.max_num_seqs,
        max_prefill_tokens=DEFAULT_MAX_PREFILL_TOKENS,
        folder=settings.engine_dir,
        or_larger=True,  # of another server, which built in the meantime
        on_progress=lambda _, part: report(f"building engine, {100 * part:.0f} %"),
    )
    return find()


def _load_on_gpu(
    model: ModelSpec,
    model_dir: Path,
    settings: TensorRtSettings,
    report: Callable[[str], None],
) -> TensorRtRunner:
    library = find_library(settings.library)
    capability = find_capability(settings.device_id)
    if capability is None:
        raise ConfigurationError(
            f"there is no GPU {settings.device_id} or no driver for it; without one set the "
            "option device to host"
        )

    def load() -> TensorRtRunner:
        return _load_with(library, capability, model, model_dir, settings, report)

    return GPU_MODELS.open(load)


def _load_with(
    library: TensorRt,
    capability: str,
    model: ModelSpec,
    model_dir: Path,
    settings: TensorRtSettings,
    report: Callable[[str], None],
) -> TensorRtRunner:
    engine, content = find_or_build_engine(model, model_dir, settings, library, capability, report)
    _check(model, engine.manifest.decoder, engine.manifest.precision)
    if model.deterministic:
        raise ConfigurationError(
            "TensorRT chooses kernels by the number of rows, which round differently: a "
            "deterministic model needs another backend"
        )
    try:
        from provider_tensorrt.cuda_device import CudaDevice  # noqa: PLC0415 - a runtime of its own
    except ImportError as error:
        raise ConfigurationError(
            f"cuda-bindings is not installed; run: {INSTALL_COMMAND}"
        ) from error
    device = CudaDevice(
        library,
        content,
        device_id=settings.device_id,
        captures_graphs=settings.cuda_graphs,
        kernel_cache=KernelCache(engine.path.with_name(FOLDER), engine.record.sha256),
    )
    return _make_runner(
        device,
        engine.manifest.decoder,
        engine.record.key.limits,
        model,
        precision=engine.manifest.precision,
        settings=settings,
        verify_margin=None,
    )


def _make_runner(
    device: Device,
    io: DecoderIO,
    limits: EngineLimits,
    model: ModelSpec,
    *,
    precision: str | None,
    settings: TensorRtSettings,
    verify_margin: float | None,
) -> TensorRtRunner:
    """A runner, or the device's memory back."""
    try:
        return TensorRtRunner(
            device,
            io,
            limits,
            max_num_seqs=model.max_num_seqs,
            max_model_len=model.max_model_len,
            precision=precision,
            memory_reserve_bytes=settings.memory_reserve_mib * 2**20,
            prefix_cache_bytes=model.prefix_cache_mib * 2**20,
            verify_margin=verify_margin,
        )
    except BaseException:
        device.close()
        raise


def _check(model: ModelSpec, io: DecoderIO, precision: str | None) -> None:
    if model.precision not in {None, precision}:
        raise ConfigurationError(
            f"precision {model.precision} is asked for and the weights are {precision}; export "
            f"them so: {EXPORT_COMMAND} --precision {model.precision}"
        )
    for name, dtype, known in (
        (io.caches[0].past, io.cache_dtype, CACHE_DTYPES),
        (io.logits.name, io.logits.dtype, LOGITS_DTYPES),
    ):
        if dtype not in known:
            raise ConfigurationError(
                f"the decoder's {name!r} is {dtype}, not {' or '.join(sorted(known))}"
            )
    if "num_logits_to_keep" not in io.inputs:
        raise ConfigurationError(
            f"the decoder makes logits of every position; export it again: {EXPORT_COMMAND}"
        )
