"""A Hugging Face folder without weights, and weights drawn at random in their place."""

import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice, product
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from provider_core import ConfigurationError
from provider_export.shapes import SHAPES

WEIGHT_SCALE = 0.02  # the standard deviation that these families are initialised with
NORM_SUFFIX = "norm.weight"
BIASED = (".q_proj.bias", ".k_proj.bias", ".v_proj.bias")
START_OF_TEXT, END_OF_TEXT = "<|startoftext|>", "<|endoftext|>"
START_OF_TURN, END_OF_TURN = "<|im_start|>", "<|im_end|>"
LETTERS = (
    "Ġetaoinshrdlucmfwypvbgkjqxz.,ETAOINSHRDLUCMFWYPVBGKJQXZ0123456789"
    "-_()'\"/:;!?=+*[]{}<>@#$%&|~^`\\"
)
"""Printable ASCII in the spelling of byte-level BPE, `Ġ` being the space; the frequent first."""
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


class RandomWeights:
    """Stands in for a checkpoint: norms of 1, everything else normally distributed.

    A tensor depends on the seed and its own name alone, whichever order they are read in.

    Args:
        is_tied: The head is the embedding's table.
        has_qkv_bias: Queries, keys and values have biases, as in Qwen2.
        seed: Of the generators.
    """

    def __init__(self, *, is_tied: bool, has_qkv_bias: bool, seed: int = 0) -> None:
        self._is_tied = is_tied
        self._has_qkv_bias = has_qkv_bias
        self._seed = seed

    def __contains__(self, name: str) -> bool:
        if name.endswith(".bias"):
            return self._has_qkv_bias and name.endswith(BIASED)
        return name != "lm_head.weight" or not self._is_tied

    def read(self, name: str, shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
        """One tensor.

        Raises:
            ConfigurationError: There is none of that name.
        """
        if name not in self:
            raise ConfigurationError(f"no tensor {name} in this shape")
        if name.endswith(NORM_SUFFIX):
            return np.ones(shape, np.float32)
        generator = np.random.default_rng((self._seed, zlib.crc32(name.encode())))
        weight = generator.standard_normal(shape, dtype=np.float32)
        weight *= np.float32(WEIGHT_SCALE)
        return weight


@dataclass(frozen=True, slots=True)
class RandomShape:
    """A source without weights.

    Attributes:
        name: One of `SHAPES`.
        num_layers: In place of the shape's own.

    Raises:
        ConfigurationError: There is no such shape.
    """

    name: str
    num_layers: int | None = None

    def __post_init__(self) -> None:
        if self.name not in SHAPES:
            raise ConfigurationError(f"shape {self.name!r} is not one of {', '.join(SHAPES)}")

    @property
    def config(self) -> dict[str, Any]:
        """What goes into config.json."""
        config = dict(SHAPES[self.name])
        if self.num_layers is not None:
            config["num_hidden_layers"] = self.num_layers
        return config

    def write(self, folder: Path) -> None:
        """Write all of a Hugging Face folder but the weights."""
        config = self.config
        special_ids = _special_ids(config)
        tokenizer_config = {
            "add_bos_token": False,
            "chat_template": CHAT_TEMPLATE,
            "clean_up_tokenization_spaces": False,
            "eos_token": END_OF_TURN,
            "model_max_length": config["max_position_embeddings"],
            "tokenizer_class": "PreTrainedTokenizerFast",
        }
        generation_config = {
            "bos_token_id": config["bos_token_id"],
            "eos_token_id": [special_ids[END_OF_TURN], config["eos_token_id"]],
        }
        for name, values in {
            "config.json": config,
            "generation_config.json": generation_config,
            "tokenizer_config.json": tokenizer_config,
        }.items():
            (folder / name).write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
        tokenizer = make_tokenizer(config["vocab_size"], special_ids)
        tokenizer.save(str(folder / "tokenizer.json"), pretty=False)


def make_tokenizer(vocab_size: int, special_ids: Mapping[str, int]) -> Tokenizer:
    """A byte-level BPE tokenizer of a given size, in which every id is a text.

    Its tokens are the 256 bytes, then all pairs of printable characters and as many triples of the
    frequent ones as fit; each is merged from one that comes before it and one more character.

    Args:
        vocab_size: At least the bytes, the pairs and the special tokens.
        special_ids: Special tokens by their texts; below `vocab_size`.
    """
    regular_ids = sorted(set(range(vocab_size)) - set(special_ids.values()))
    tokens = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [(first, second) for first in LETTERS for second in LETTERS]
    num_triples = len(regular_ids) - len(tokens) - len(merges)
    triples = product(_frequent_letters(num_triples), repeat=3)
    merges += ((first + second, third) for first, second, third in islice(triples, num_triples))
    tokens += ("".join(merge) for merge in merges)
    vocabulary = dict(zip(tokens, regular_ids, strict=True)) | dict(special_ids)
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(special_ids))
    return tokenizer


def _frequent_letters(num_triples: int) -> str:
    """The fewest letters that so many triples can be made of."""
    enough = (count for count in range(len(LETTERS) + 1) if count**3 >= num_triples)
    return LETTERS[: next(enough)]


def _special_ids(config: Mapping[str, Any]) -> dict[str, int]:
    """Tokens that begin and end turns and texts, by the ids that the configuration has."""
    first = config["eos_token_id"]
    ids = {END_OF_TEXT: first, START_OF_TURN: first + 1, END_OF_TURN: first + 2}
    if config["bos_token_id"] != first:
        ids[START_OF_TEXT] = config["bos_token_id"]
    return ids
