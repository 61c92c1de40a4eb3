"""Sessions with the options that measured best, on the provider that was asked for and no other."""

from pathlib import Path

import onnxruntime as ort

from provider_core import ConfigurationError
from provider_onnxruntime.settings import OnnxRuntimeSettings

PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
LOG_ERRORS = 3  # ONNX Runtime's severity


def open_session(path: Path, settings: OnnxRuntimeSettings) -> ort.InferenceSession:
    """Load a model file.

    Raises:
        ConfigurationError: The provider is not installed or did not take the model, or the file is
            not a model that this runtime can run.
    """
    provider = PROVIDERS[settings.provider]
    if provider not in ort.get_available_providers():
        raise ConfigurationError(
            f"onnxruntime {ort.__version__} here has no {provider}; install the extra "
            "[onnxruntime-gpu] in place of [onnxruntime]"
        )
    providers: list[tuple[str, dict[str, int]]] = [(PROVIDERS["cpu"], {})]
    if settings.provider == "cuda":
        ort.preload_dlls()  # CUDA and cuDNN where pip put them
        providers.insert(0, (provider, {"device_id": settings.device_id}))
    try:
        session = ort.InferenceSession(str(path), session_options(settings), providers=providers)
    except Exception as error:  # the runtime raises a class of its own per status code
        raise ConfigurationError(f"onnxruntime cannot load {path}: {error}") from error
    # onnxruntime falls back to the CPU without an error, even where no GPU exists.
    if session.get_providers()[0] != provider:
        got = ", ".join(session.get_providers())
        raise ConfigurationError(
            f"{provider} was asked for and the session runs on {got}: is there a GPU, and the "
            "CUDA version that this onnxruntime wants?"
        )
    return session


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
