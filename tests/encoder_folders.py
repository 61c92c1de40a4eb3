"""Folders with tiny encoders of random weights, as Sentence Transformers lays them out."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from provider_core.encoders import EncoderRow

SIZE = 8
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
WORDS = ("the", "cat", "dog", "sat", "ran", "on", "mat", "away", "##s", "query", ":", "document")
VOCABULARY = {word: index for index, word in enumerate((*SPECIAL, *WORDS))}
PAD, UNK, CLS, SEP = range(4)

OutputKind = Literal["last_hidden_state", "sentence_embedding", "logits"]


@dataclass(frozen=True, slots=True)
class TinyEncoder:
    """A model that mixes its tokens, so that padding which is not masked changes everything."""

    tokens: npt.NDArray[np.float32]  # [vocabulary, SIZE]
    types: npt.NDArray[np.float32]  # [2, SIZE]
    head: npt.NDArray[np.float32]  # [SIZE, 1]

    def hidden(self, row: EncoderRow) -> npt.NDArray[np.float64]:
        """float64 `[s, SIZE]` of one row alone."""
        types = np.zeros(len(row), int) if row.token_type_ids is None else row.token_type_ids
        hidden = np.tanh(self.tokens[row.token_ids].astype(float) + self.types[types])
        mixed: npt.NDArray[np.float64] = hidden + hidden.mean(axis=0)
        return mixed

    def logit(self, row: EncoderRow) -> float:
        """What the head says to the first token."""
        return float((self.hidden(row)[0] @ self.head)[0])


def make_encoder(seed: int = 0, size: int = SIZE) -> TinyEncoder:
    """Random weights."""
    random = np.random.default_rng(seed)
    shapes = ((len(VOCABULARY), size), (2, size), (size, 1))
    return TinyEncoder(*(random.standard_normal(shape, np.float32) for shape in shapes))


def write_encoder(
    folder: Path,
    encoder: TinyEncoder,
    *,
    output: OutputKind = "last_hidden_state",
    config: Mapping[str, Any] | None = None,
    modules: Sequence[str] = ("Transformer", "Pooling", "Normalize"),
    pooling: Mapping[str, Any] | None = None,
    files: Mapping[str, Any] | None = None,
    inputs: Sequence[str] = ("input_ids", "attention_mask", "token_type_ids"),
) -> Path:
    """Write a model folder.

    Args:
        folder: Made if it is missing.
        encoder: The weights.
        output: What the graph gives: tokens, their mean, or a score.
        config: Further keys of config.json.
        modules: Class names in modules.json.
        pooling: 1_Pooling/config.json; by default the mean.
        files: Further JSON files by name.
        inputs: What the graph declares; token types may be left out.
    """
    folder.mkdir(parents=True, exist_ok=True)
    onnx.save_model(_graph(encoder, output, inputs), folder / "model.onnx")
    make_tokenizer().save(str(folder / "tokenizer.json"))
    contents: dict[str, Any] = {
        "config.json": {
            "model_type": "bert",
            "max_position_embeddings": 64,
            "pad_token_id": PAD,
            "vocab_size": len(VOCABULARY),
            **(config or {}),
        },
        "modules.json": [
            {"idx": index, "path": "", "type": f"sentence_transformers.models.{name}"}
            for index, name in enumerate(modules)
        ],
        "1_Pooling/config.json": pooling or {"pooling_mode_mean_tokens": True},
        **(files or {}),
    }
    for name, content in contents.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(json.dumps(content))
    return folder


def make_tokenizer() -> Tokenizer:
    """WordPiece with the control tokens of BERT around a text and around a pair."""
    tokenizer = Tokenizer(models.WordPiece(VOCABULARY, unk_token="[UNK]"))
    tokenizer.add_special_tokens(list(SPECIAL))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", CLS), ("[SEP]", SEP)],
    )
    return tokenizer


def _graph(encoder: TinyEncoder, output: OutputKind, inputs: Sequence[str]) -> onnx.ModelProto:
    size = encoder.tokens.shape[1]
    dims: dict[str, list[Any]] = {
        "last_hidden_state": ["n", "s", size],
        "sentence_embedding": ["n", size],
        "logits": ["n", 1],
    }
    embedded = "tokens"
    nodes = [helper.make_node("Gather", ["E", "input_ids"], ["tokens"])]
    if "token_type_ids" in inputs:
        nodes += [
            helper.make_node("Gather", ["T", "token_type_ids"], ["types"]),
            helper.make_node("Add", ["tokens", "types"], ["embedded"]),
        ]
        embedded = "embedded"
    nodes += [
        helper.make_node("Tanh", [embedded], ["hidden"]),
        helper.make_node("Cast", ["attention_mask"], ["mask2"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["mask2", "two"], ["mask"]),
        helper.make_node("Mul", ["hidden", "mask"], ["masked"]),
        helper.make_node("ReduceSum", ["masked", "one"], ["sum"], keepdims=1),
        helper.make_node("ReduceSum", ["mask", "one"], ["count"], keepdims=1),
        helper.make_node("Div", ["sum", "count"], ["mean"]),
        helper.make_node("Add", ["hidden", "mean"], ["last_hidden_state"]),
        helper.make_node("Squeeze", ["mean", "one"], ["sentence_embedding"]),
        helper.make_node("Gather", ["last_hidden_state", "zero"], ["first"], axis=1),
        helper.make_node("MatMul", ["first", "H"], ["logits"]),
    ]
    constants: dict[str, npt.NDArray[Any]] = {
        "E": encoder.tokens,
        "T": encoder.types,
        "H": encoder.head,
        "zero": np.array(0, np.int64),
        "one": np.array([1], np.int64),
        "two": np.array([2], np.int64),
    }
    graph = helper.make_graph(
        nodes,
        "encoder",
        [helper.make_tensor_value_info(name, TensorProto.INT64, ["n", "s"]) for name in inputs],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, dims[output])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
