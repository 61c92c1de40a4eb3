"""Models in onnxruntime-genai's own engine: the plugin `genai`.

The folder holds a `genai_config.json`. Without a backend named for it the plugin `onnxruntime`
serves it, batched by the core; this one leaves batching and sampling to onnxruntime-genai.
"""

from pathlib import Path

from provider_core import ConfigurationError, Engine, ModelSpec, hookimpl

NAME = "genai"


@hookimpl
def load_model(model: ModelSpec, model_dir: Path) -> Engine | None:
    """Load a folder for which this backend is named."""
    if model.backend != NAME:
        return None
    from provider_core.plugin_settings import read_backend_settings
    from provider_genai.engine import GenaiEngine
    from provider_genai.folder import read_folder
    from provider_genai.settings import GenaiSettings

    if model.precision is not None:
        raise ConfigurationError("the backend genai runs weights as they are stored")
    settings = read_backend_settings(NAME, GenaiSettings, model.options)
    folder = read_folder(model_dir)
    return GenaiEngine(
        folder,
        settings,
        max_num_seqs=model.max_num_seqs,
        max_model_len=min(model.max_model_len, folder.max_length or model.max_model_len),
    )
