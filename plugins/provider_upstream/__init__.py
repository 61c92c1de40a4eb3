"""Any server that speaks OpenAI's completions, as a backend: the plugin `upstream`.

Ids go up as the prompt of `/v1/completions`, and ids come back, so that the core's tokenizer,
templates, dialects, limits and bills serve what runs elsewhere, such as an existing vLLM.
"""

from pathlib import Path

from provider_core import Engine, ModelSpec, hookimpl

NAME = "upstream"


@hookimpl
def load_model(model: ModelSpec, model_dir: Path) -> Engine | None:
    """Wait for the upstream, and forward to it; the folder holds a tokenizer and no weights."""
    if model.backend != NAME:
        return None
    from provider_core.plugin_settings import read_backend_settings
    from provider_upstream.discovery import find_upstream
    from provider_upstream.engine import UpstreamEngine
    from provider_upstream.piece_encoder import read_piece_encoder
    from provider_upstream.settings import UpstreamSettings

    settings = read_backend_settings(NAME, UpstreamSettings, model.options)
    encoder = read_piece_encoder(model_dir)
    upstream = find_upstream(settings, encoder)
    return UpstreamEngine(
        upstream,
        settings,
        encoder,
        max_num_seqs=model.max_num_seqs,
        max_model_len=min(model.max_model_len, upstream.max_model_len or model.max_model_len),
    )
