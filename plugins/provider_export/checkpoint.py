"""Weights of a Hugging Face folder: safetensors, one file or shards, and nothing else.

Pickled weights (`.bin`, `.pt`) run code when they are read and are refused by not being looked for.
"""

import json
import re
from pathlib import Path
from typing import Any

import ml_dtypes  # noqa: F401 (registers bfloat16 with numpy, as safetensors needs)
import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open

from provider_core import ConfigurationError

INDEX_FILE = "model.safetensors.index.json"
SINGLE_FILE = "model.safetensors"
TEXT_PREFIXES = {"model.language_model.": "model.", "language_model.": ""}
"""Of the text decoder's tensors in a multimodal checkpoint, and in a checkpoint of text alone."""
LAYER = re.compile(r"model\.layers\.(\d+)\.")
FLOAT_TYPES = ("F32", "F16", "BF16")
"""Safetensors' names of the types that weights are read from; some others numpy does not have."""


class Checkpoint:
    """Named tensors, read from their files one at a time.

    The decoder of a multimodal checkpoint goes by the names it has in one of text alone.

    Args:
        folder: Holds `model.safetensors`, or `model.safetensors.index.json` and its shards.

    Raises:
        ConfigurationError: No safetensors there, or a file is malformed.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._places = {
            _text_name(stored_name): (path, stored_name)
            for stored_name, path in _locate_tensors(folder).items()
        }

    def __contains__(self, name: str) -> bool:
        return name in self._places

    @property
    def num_layers(self) -> int:
        """Layers that tensors are named after."""
        numbers = (LAYER.match(name) for name in self._places)
        return max((int(match[1]) + 1 for match in numbers if match), default=0)

    def read(self, name: str, shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
        """One tensor as float32.

        Args:
            name: As a checkpoint of text alone spells it.
            shape: What the configuration says it must be.

        Raises:
            ConfigurationError: It is missing, has another shape, is stored in another type than
                `FLOAT_TYPES`, or holds what is no finite number.
        """
        if name not in self._places:
            raise ConfigurationError(f"{self.folder} has no tensor {name}")
        path, stored_name = self._places[name]
        with _open(path) as file:
            stored = file.get_slice(stored_name)
            stored_shape, dtype = stored.get_shape(), stored.get_dtype()
            if dtype not in FLOAT_TYPES:
                raise ConfigurationError(
                    f"tensor {name} is stored as {dtype}, not as one of {', '.join(FLOAT_TYPES)}; "
                    "of a quantised checkpoint, export the one that it was made from"
                )
            if stored_shape != list(shape):
                raise ConfigurationError(
                    f"tensor {name} has shape {stored_shape}, config.json implies {list(shape)}"
                )
            tensor: npt.NDArray[Any] = file.get_tensor(stored_name)  # of one of these types
        weight = tensor.astype(np.float32, copy=False)
        if not np.isfinite([weight.min(), weight.max()]).all():  # a NaN is both
            raise ConfigurationError(f"tensor {name} holds infinities or what is not a number")
        return weight


def _text_name(stored_name: str) -> str:
    for prefix, text_prefix in TEXT_PREFIXES.items():
        if stored_name.startswith(prefix):
            return text_prefix + stored_name.removeprefix(prefix)
    return stored_name


def _locate_tensors(folder: Path) -> dict[str, Path]:
    index_file = folder / INDEX_FILE
    if not index_file.is_file():
        single = folder / SINGLE_FILE
        if not single.is_file():
            raise ConfigurationError(f"{folder} holds neither {SINGLE_FILE} nor {INDEX_FILE}")
        return _names_in(single)
    try:
        shards = set(json.loads(index_file.read_bytes())["weight_map"].values())
    except (RecursionError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigurationError(f"{index_file} is not an index of shards") from error
    file_of: dict[str, Path] = {}
    for shard in sorted(shards):
        if not isinstance(shard, str) or Path(shard).name != shard:
            raise ConfigurationError(f"{index_file} names {shard!r}, which is not a file beside it")
        if not (folder / shard).is_file():
            raise ConfigurationError(f"{folder} has no {shard}, which {INDEX_FILE} names")
        file_of |= _names_in(folder / shard)
    return file_of


def _names_in(path: Path) -> dict[str, Path]:
    with _open(path) as file:
        return dict.fromkeys(file.keys(), path)


def _open(path: Path) -> Any:  # safetensors has no type for an open file
    try:
        return safe_open(str(path), framework="np")
    except (SafetensorError, OSError) as error:
        raise ConfigurationError(f"{path} is not a safetensors file") from error
