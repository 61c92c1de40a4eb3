"""What a folder's `genai_config.json` says, and whether it may be opened."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from provider_core import ConfigurationError

CONFIG = "genai_config.json"


@dataclass(frozen=True, slots=True)
class GenaiFolder:
    """A model that onnxruntime-genai can load.

    Attributes:
        eos_token_ids: At which its engine ends a text; it does not say at which.
        max_length: Most tokens of a sequence, if the file says.
        batches_dynamically: Whether sequences enter while others run; if not, a batch begins when
            all of the one before have ended.
    """

    path: Path
    vocab_size: int
    eos_token_ids: tuple[int, ...]
    max_length: int | None
    batches_dynamically: bool


def read_folder(path: Path) -> GenaiFolder:
    """Read and check a folder's configuration.

    Raises:
        ConfigurationError: There is none, it is malformed, or it names a library to load.
    """
    try:
        config = json.loads((path / CONFIG).read_bytes())
        model, search = config["model"], config.get("search", {})
        _check_libraries(config)
        eos = model.get("eos_token_id", [])
        return GenaiFolder(
            path,
            vocab_size=int(model["vocab_size"]),
            eos_token_ids=tuple(map(int, eos if isinstance(eos, list) else [eos])),
            max_length=search.get("max_length") or model.get("context_length"),
            batches_dynamically=bool(config.get("engine", {}).get("dynamic_batching")),
        )
    except FileNotFoundError:
        raise ConfigurationError(f"{path} holds no {CONFIG}") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigurationError(f"{path / CONFIG} is no configuration of a model") from error


def _check_libraries(value: Any) -> None:  # JSON
    """Refuse code of the folder's own, wherever the configuration names it."""
    if isinstance(value, Mapping):
        if "custom_ops_library" in value:
            raise ConfigurationError("custom_ops_library is code; none is ever loaded")
        for inner in value.values():
            _check_libraries(inner)
    elif isinstance(value, list):
        for inner in value:
            _check_libraries(inner)
