"""What a folder says of its encoder: the graph's outputs, pooling, normalisation, limits.

The files are those of Sentence Transformers (`modules.json`, `1_Pooling/config.json`,
`sentence_bert_config.json`) and of Hugging Face (`config.json`). A graph that pools by itself
(`sentence_embedding`) is believed.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from provider_core import ConfigurationError
from provider_core.decoder_io import TensorSpec
from provider_onnxruntime.model_folder import (
    check_external_data,
    check_operators,
    read_precision,
)
from provider_onnxruntime.onnx_file import OnnxFile
from provider_onnxruntime.settings import OnnxRuntimeSettings, Pooling

OutputKind = Literal["tokens", "vectors", "scores"]

VECTOR_OUTPUTS = ("sentence_embedding", "pooled_embedding")
TOKEN_OUTPUTS = ("last_hidden_state", "token_embeddings")
SCORE_OUTPUT = "logits"
FED_INPUTS = frozenset({"input_ids", "attention_mask", "token_type_ids", "position_ids"})
PAST = "past_key_values."  # of decoders that were made encoders: fed empty

POOLING_FLAGS: Mapping[str, Pooling] = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
OFFSET_POSITIONS = frozenset(
    {
        "camembert",
        "data2vec-text",
        "longformer",
        "mpnet",
        "roberta",
        "xlm-roberta",
        "xlm-roberta-xl",
    }
)
"""Model types whose first position is one behind the padding's id, so that fewer can be used."""
ACTIVATIONS: Mapping[str, Literal["sigmoid", "identity"]] = {
    "Sigmoid": "sigmoid",
    "Identity": "identity",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderFile:
    """An encoder that may be opened.

    Attributes:
        inputs: Of the graph.
        output: The one that is used.
        pooling: How vectors of tokens become one; `None` if the graph does that.
        normalizes: Vectors are brought to length 1.
        activation: Of scores.
        vocab_size: Ids that the model has; 0 if the folder does not say.
        pad_token_id: Fills rows up to the longest.
        max_model_len: Most tokens of a row; `None` if the folder does not say.
        shorter_sizes: Lengths to which the model allows vectors to be cut; `None` is any.
    """

    path: Path
    inputs: tuple[TensorSpec, ...]
    output: TensorSpec
    kind: OutputKind
    precision: str | None
    pooling: Pooling | None = None
    normalizes: bool = False
    activation: Literal["sigmoid", "identity"] = "sigmoid"
    vocab_size: int = 0
    pad_token_id: int = 0
    max_model_len: int | None = None
    shorter_sizes: tuple[int, ...] | None = ()


def find_encoder(
    folder: Path, path: Path, file: OnnxFile, settings: OnnxRuntimeSettings
) -> EncoderFile | None:
    """Describe an encoder and refuse what must not be opened; `None` if the graph is a decoder.

    Args:
        folder: The model's; nothing outside it is ever opened.
        path: The graph's file in it.
        file: Its skeleton.
        settings: May say what the folder leaves open.

    Raises:
        ConfigurationError: The graph is malformed or unsafe, or the folder asks for a step that is
            not known.
    """
    found = find_output(file)
    if found is None:
        return None
    output, kind = found
    check_operators(file)
    check_external_data(folder, path, file.weights)
    strange = [
        spec.name
        for spec in file.inputs
        if spec.name not in FED_INPUTS and not spec.name.startswith(PAST)
    ]
    if strange:
        raise ConfigurationError(f"{path}: nothing is known of the encoder's inputs {strange}")
    config = _read(folder / "config.json")
    vocab_size = config.get("vocab_size")
    pad_token_id = _pad_token_id(folder, config)
    modules = _module_types(folder)
    if kind == "scores":
        _check_one_label(path, output, config)
    return EncoderFile(
        path=path,
        inputs=tuple(file.inputs),
        output=output,
        kind=kind,
        precision=read_precision(file),
        pooling=_pooling(folder, modules, settings) if kind == "tokens" else None,
        normalizes="Normalize" in modules if settings.normalize is None else settings.normalize,
        activation=_activation(config),
        vocab_size=vocab_size if isinstance(vocab_size, int) else 0,
        pad_token_id=pad_token_id,
        max_model_len=_max_model_len(folder, config, pad_token_id),
        shorter_sizes=_shorter_sizes(config, settings),
    )


def find_output(file: OnnxFile) -> tuple[TensorSpec, OutputKind] | None:
    """The output of an encoder and what it holds; `None` for a graph that is none.

    A decoder gives logits for each position, `[n, s, vocabulary]`, a classifier `[n, labels]`.
    """
    outputs = {spec.name: spec for spec in file.outputs}
    logits = outputs.get(SCORE_OUTPUT)
    if logits is not None:
        return (logits, "scores") if len(logits.shape) == 2 else None
    for name in VECTOR_OUTPUTS:
        if name in outputs:
            return outputs[name], "vectors"
    for name in TOKEN_OUTPUTS:
        if name in outputs:
            return outputs[name], "tokens"
    return None


def _module_types(folder: Path) -> tuple[str, ...]:
    """Class names of the modules behind the transformer, in order."""
    modules = _read_json(folder / "modules.json")
    if modules is None:
        return ()
    try:
        types = tuple(str(module["type"]).rpartition(".")[2] for module in modules)
    except (TypeError, KeyError) as error:
        raise ConfigurationError(f"{folder / 'modules.json'} is not a list of modules") from error
    return types[1:]


def _pooling(folder: Path, modules: Sequence[str], settings: OnnxRuntimeSettings) -> Pooling:
    """How the folder pools, if its graph does not.

    Raises:
        ConfigurationError: It says nothing, or asks for modules that are not known.
    """
    unknown = [name for name in modules if name not in {"Pooling", "Normalize"}]
    if unknown:
        raise ConfigurationError(
            f"{folder / 'modules.json'}: the modules {unknown} are in no graph; export the model "
            "with the output sentence_embedding"
        )
    if settings.pooling is not None:
        return settings.pooling
    config = _read(folder / "1_Pooling" / "config.json")
    named = config.get("pooling_mode")
    chosen = [
        mode for flag, mode in POOLING_FLAGS.items() if config.get(flag) is True or mode == named
    ]
    if len(chosen) != 1:
        known = ", ".join(get_args(Pooling))
        raise ConfigurationError(
            f"{folder} does not say which one pooling it uses; set the option pooling to {known}"
        )
    return chosen[0]


def _check_one_label(path: Path, output: TensorSpec, config: Mapping[str, Any]) -> None:
    num_labels = output.shape[1] or len(config.get("id2label") or (0,))
    if num_labels != 1:
        raise ConfigurationError(
            f"{path} is a classifier of {num_labels} labels; a reranker has one"
        )


def _activation(config: Mapping[str, Any]) -> Literal["sigmoid", "identity"]:
    """What turns a logit into a score, as Sentence Transformers' cross-encoders write it."""
    nested = config.get("sentence_transformers")
    named = nested.get("activation_fn") if isinstance(nested, dict) else None
    named = named or config.get("sbert_ce_default_activation_function") or "Sigmoid"
    name = str(named).rpartition(".")[2]
    if name not in ACTIVATIONS:
        raise ConfigurationError(f"config.json: the activation {name!r} of scores is not known")
    return ACTIVATIONS[name]


def _pad_token_id(folder: Path, config: Mapping[str, Any]) -> int:
    """The id that fills rows: some graphs tell positions by it."""
    token_id = config.get("pad_token_id")
    if not isinstance(token_id, int):
        padding = _read(folder / "tokenizer.json").get("padding")
        token_id = padding.get("pad_id") if isinstance(padding, dict) else None
    return token_id if isinstance(token_id, int) else 0


def _max_model_len(folder: Path, config: Mapping[str, Any], pad_token_id: int) -> int | None:
    limits = [_read(folder / "sentence_bert_config.json").get("max_seq_length")]
    if config.get("model_type") in OFFSET_POSITIONS:
        positions = config.get("max_position_embeddings")
        limits.append(positions - pad_token_id - 1 if isinstance(positions, int) else None)
    return min((limit for limit in limits if isinstance(limit, int) and limit > 0), default=None)


def _shorter_sizes(
    config: Mapping[str, Any], settings: OnnxRuntimeSettings
) -> tuple[int, ...] | None:
    """Sizes that the model was trained for besides its own; `None` is any."""
    sizes = settings.matryoshka_dimensions or config.get("matryoshka_dimensions")
    if sizes is None:
        return None if config.get("is_matryoshka") is True else ()
    if not isinstance(sizes, list | tuple) or not all(
        type(size) is int and size > 0 for size in sizes
    ):
        raise ConfigurationError("matryoshka_dimensions must be a list of positive integers")
    return tuple(sorted(sizes))


def _read(path: Path) -> dict[str, Any]:
    """The JSON object of a file, empty if there is no such file.

    Raises:
        ConfigurationError: It holds something else.
    """
    values = _read_json(path)
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigurationError(f"{path} is not a JSON object")
    return values


def _read_json(path: Path) -> Any:  # whatever the file holds
    if not path.is_file():
        return None
    try:
        return json.loads(path.read_bytes())
    except ValueError as error:
        raise ConfigurationError(f"{path} is not JSON") from error
