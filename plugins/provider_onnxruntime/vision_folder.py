"""Folders of models that see: an encoder, an embedding table, and a decoder that takes vectors.

The layout is that of Optimum and Transformers.js: `vision_encoder.onnx`, `embed_tokens.onnx` and
`decoder_model_merged.onnx`, in the folder or in `onnx/`. Served are models whose chat template
writes one placeholder for an image and whose encoder sees it whole, as LLaVA's.
"""

import json
from dataclasses import dataclass
from pathlib import Path

from provider_core import ConfigurationError
from provider_core.model_files import resolve_beneath
from provider_onnxruntime.model_folder import (
    DecoderFile,
    check_external_data,
    check_operators,
    read_decoder,
)
from provider_onnxruntime.onnx_file import OnnxFile, read_onnx_file
from provider_onnxruntime.settings import OnnxRuntimeSettings

DECODER, EMBEDDER, ENCODER = "decoder_model_merged", "embed_tokens", "vision_encoder"


@dataclass(frozen=True, slots=True, kw_only=True)
class VisionFiles:
    """A model that sees, and that may be opened.

    Attributes:
        image_token_id: The placeholder that the chat template writes for an image.
    """

    folder: Path
    decoder: DecoderFile
    embedder: Path
    encoder: Path
    image_token_id: int


def find_vision(folder: Path, settings: OnnxRuntimeSettings) -> VisionFiles | None:
    """Describe a model that sees, and refuse what must not be opened; `None` if it is no such one.

    Args:
        folder: The model's; nothing outside it is ever opened.
        settings: `model_file` may name one of several decoders, e.g. `onnx/
            decoder_model_merged_q4.onnx`; the other parts are those of the same ending, if there
            are such, else the plain ones.

    Raises:
        ConfigurationError: A part is malformed, unsafe, or of a kind that is not served.
    """
    name = settings.model_file or _find(folder, DECODER)
    if name is None or not Path(name).stem.startswith(DECODER):
        return None
    suffix = Path(name).stem.removeprefix(DECODER)
    parts = [_find(folder, part, suffix) for part in (EMBEDDER, ENCODER)]
    if None in parts:
        return None
    path = resolve_beneath(folder, name, what="the decoder's file")
    embedder, _ = _check(folder, parts[0] or "")
    encoder, graph = _check(folder, parts[1] or "")
    _check_inputs(encoder, graph)
    return VisionFiles(
        folder=folder,
        decoder=read_decoder(folder, path),
        embedder=embedder,
        encoder=encoder,
        image_token_id=_read_image_token_id(folder),
    )


def _find(folder: Path, part: str, suffix: str = "") -> str | None:
    """The name of a part's file, of this ending if there is one."""
    names = [f"{place}{part}{end}.onnx" for end in (suffix, "") for place in ("onnx/", "")]
    return next((name for name in names if (folder / name).is_file()), None)


def _check(folder: Path, name: str) -> tuple[Path, OnnxFile]:
    path = resolve_beneath(folder, name, what="a part's file")
    file = read_onnx_file(path)
    check_operators(file)
    check_external_data(folder, path, file.weights)
    return path, file


def _check_inputs(path: Path, graph: OnnxFile) -> None:
    """Refuse encoders that take more than one whole image.

    Raises:
        ConfigurationError: This one does.
    """
    if [len(spec.shape) for spec in graph.inputs] != [4]:
        names = ", ".join(f"{spec.name} of {len(spec.shape)} dimensions" for spec in graph.inputs)
        raise ConfigurationError(
            f"{path} takes {names}; served are encoders of pixel_values [n, 3, height, width]"
        )


def _read_image_token_id(folder: Path) -> int:
    path = folder / "config.json"
    try:
        config = json.loads(path.read_bytes())
        token_id = config.get("image_token_id", config.get("image_token_index"))
    except (OSError, ValueError, AttributeError) as error:
        raise ConfigurationError(f"{path} cannot be read") from error
    if not isinstance(token_id, int):
        raise ConfigurationError(f"{path} has no image_token_id")
    return token_id
