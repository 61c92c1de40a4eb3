"""Decoders and encoders on ONNX Runtime, on the CPU or on CUDA: the plugin `onnxruntime`."""

from pathlib import Path

from provider_core import ConfigurationError, Encoder, Finding, ModelRunner, ModelSpec, hookimpl

NAME = "onnxruntime"


@hookimpl
def load_model(model: ModelSpec, model_dir: Path) -> ModelRunner | Encoder | None:
    """Load a folder that holds an ONNX model, unless another backend is named for it."""
    if model.backend not in {None, NAME}:
        return None
    from provider_onnxruntime.model_folder import find_decoder_file, holds_onnx, read_decoder

    if not holds_onnx(model_dir):
        if model.backend is None:
            return None
        raise ConfigurationError(f"{model_dir} holds no ONNX decoder (model.onnx)")

    from provider_core.plugin_settings import read_backend_settings
    from provider_onnxruntime.encoder_folder import find_encoder
    from provider_onnxruntime.onnx_file import read_onnx_file
    from provider_onnxruntime.settings import OnnxRuntimeSettings
    from provider_onnxruntime.vision_folder import find_vision
    from provider_onnxruntime.weight_sets import choose_weights

    settings = read_backend_settings(NAME, OnnxRuntimeSettings, model.options)
    vision = find_vision(model_dir, settings)
    if vision is not None:
        from provider_onnxruntime.vision_runner import VisionRunner

        _check_as_supplied(model.precision, vision.decoder.precision)
        return VisionRunner(
            vision,
            settings,
            max_num_seqs=model.max_num_seqs,
            max_model_len=model.max_model_len,
            prefix_cache_mib=model.prefix_cache_mib,
        )
    path = find_decoder_file(model_dir, settings.model_file)
    file = read_onnx_file(path)
    encoder = find_encoder(model_dir, path, file, settings)
    if encoder is not None:
        from provider_onnxruntime.encoder import OnnxRuntimeEncoder

        _check_as_supplied(model.precision, encoder.precision)
        return OnnxRuntimeEncoder(
            encoder, settings, max_num_seqs=model.max_num_seqs, max_model_len=model.max_model_len
        )
    decoder = read_decoder(model_dir, path, file)
    plan = choose_weights(
        decoder,
        model.precision,
        provider=settings.provider,
        block_size=settings.int4_block_size,
        is_deterministic=model.deterministic,
    )

    from provider_onnxruntime.runner import OnnxRuntimeRunner

    return OnnxRuntimeRunner(
        decoder,
        settings,
        plan=plan,
        max_num_seqs=model.max_num_seqs,
        max_model_len=model.max_model_len,
        prefix_cache_mib=model.prefix_cache_mib,
    )


@hookimpl
def diagnose() -> list[Finding]:
    """Say which version is installed, and where it can run models."""
    try:
        import onnxruntime as ort
    except ImportError as error:
        return [
            Finding(
                name=NAME,
                status="missing",
                detail=str(error),
                remedy='pip install "provider-core[onnxruntime]"',
            )
        ]
    providers = ort.get_available_providers()
    detail = f"{ort.__version__}, built with {', '.join(providers)}"
    if "CUDAExecutionProvider" in providers:
        detail += "; CUDA graphs of decoders that write caches in place (genai, scatter)"
    return [Finding(name=NAME, status="ok", detail=detail)]


def _check_as_supplied(wanted: str | None, stored: str | None) -> None:
    if wanted not in {None, stored}:
        raise ConfigurationError(
            f"precision {wanted!r} is derived for plain decoders only; this model is {stored}"
        )
