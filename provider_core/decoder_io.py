"""What an exported decoder wants and gives: three conventions, told apart by the graph alone.

================  =====================================================  =======================
convention        how keys and values are kept                           told by
================  =====================================================  =======================
`genai`           fixed buffers, written in place by GroupQueryAttention  that operator
`scatter`         fixed buffers, written in place by TensorScatter        a `write_indices` input
`optimum`         `present` is `past` and the new positions: it grows     neither of the two
================  =====================================================  =======================

Nothing here runs a model, so that every backend that serves exported decoders can use it.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from provider_core.errors import ConfigurationError

Convention = Literal["genai", "optimum", "scatter"]

InputRole = Literal[
    "input_ids",  # [n, s], the new tokens
    "inputs_embeds",  # [n, s, size], vectors of the new tokens in place of their ids
    "attention_mask",  # [n, longest length after this step], 1 where a position counts
    "position_ids",  # [n, s]
    "seqlens_k",  # [n], each row's length after this step, less one
    "total_sequence_length",  # scalar, the longest length after this step
    "write_indices",  # [n], the position of each row's first new token
    "nonpad_kv_seqlen",  # [n], each row's length after this step
    "use_cache_branch",  # [1], whether past holds anything
    "num_logits_to_keep",  # scalar, last positions that get logits; 0 is all
]
"""What an input means, by its usual name."""

_ROLES: tuple[InputRole, ...] = get_args(InputRole)
_USUAL_ROLES: Mapping[str, InputRole] = {
    **{role: role for role in _ROLES},
    "past_sequence_lengths": "seqlens_k",
    "total_seq_len": "total_sequence_length",
    "logits_to_keep": "num_logits_to_keep",
}
_PAST_PATTERNS = (
    ("key", r"past_key_values\.(\d+)\.key"),
    ("value", r"past_key_values\.(\d+)\.value"),
    ("key", r"past_keys?[._](\d+)"),
    ("value", r"past_values?[._](\d+)"),
)
_PRESENT_PATTERNS = (
    ("key", r"present(?:_key_values)?\.(\d+)\.key"),
    ("value", r"present(?:_key_values)?\.(\d+)\.value"),
    ("key", r"present_keys?[._](\d+)"),
    ("value", r"present_values?[._](\d+)"),
)
_Patterns = Sequence[tuple[str, str]]  # `key` or `value`, and a pattern whose group is the layer


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """An input or output as the graph declares it.

    Attributes:
        dtype: numpy's name, e.g. `float32`.
        shape: `None` for a dimension that is known only when the graph runs.
    """

    name: str
    dtype: str
    shape: tuple[int | None, ...]


@dataclass(frozen=True, slots=True)
class CacheTensor:
    """One half of a layer's cache, `[n, num_heads, length, head_dim]` in and out."""

    past: str
    present: str
    num_heads: int
    head_dim: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DecoderNames:
    """How a graph spells its inputs and outputs, where it says so itself.

    Attributes:
        inputs: The role of each input that is no cache.
        past_key: Template with one `%d` for the layer, as are the next three.
    """

    inputs: Mapping[str, InputRole]
    past_key: str
    past_value: str
    present_key: str
    present_value: str
    logits: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DecoderIO:
    """The inputs and outputs of one decoder graph.

    Attributes:
        inputs: By role; only what the graph has.
        caches: Key and value of each layer in turn.
        cache_dtype: numpy's name, the same for all caches.
        batch_size: A number if the graph takes only batches of that size.
        max_cache_len: A number if the graph's caches have a fixed length.
    """

    convention: Convention
    inputs: Mapping[InputRole, TensorSpec]
    caches: tuple[CacheTensor, ...]
    cache_dtype: str
    logits: TensorSpec
    vocab_size: int
    batch_size: int | None
    max_cache_len: int | None


def describe_decoder(
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    op_types: Collection[str],
    names: DecoderNames | None = None,
    head_dim: int | None = None,
) -> DecoderIO:
    """Find out what each input and output of a decoder graph is for.

    Args:
        inputs: The graph's inputs, weights left out.
        outputs: The graph's outputs.
        op_types: Operators that occur anywhere in the graph.
        names: As `genai_config.json` gives them; `None` tries the usual ones.
        head_dim: Of the caches, for a graph that leaves it open, as genai's builder does.

    Raises:
        ConfigurationError: Something needed is missing, or an input is unknown; named.
    """
    by_role: dict[InputRole, TensorSpec] = {}
    past: dict[tuple[int, str], TensorSpec] = {}
    roles = _USUAL_ROLES if names is None else {**_USUAL_ROLES, **names.inputs}
    for spec in inputs:
        if spec.name in roles:
            by_role[roles[spec.name]] = spec
        elif place := _cache_place(spec.name, _past_patterns(names)):
            past[place] = spec
        else:
            raise ConfigurationError(f"the decoder's input {spec.name!r} is not one we know")
    present = {
        place: spec
        for spec in outputs
        if (place := _cache_place(spec.name, _present_patterns(names)))
    }
    convention = _convention(by_role, op_types)
    _require(convention, by_role)
    caches = _pair_caches(past, present, head_dim)
    logits = _find_logits(outputs, "logits" if names is None else names.logits)
    first = past[0, "key"]
    return DecoderIO(
        convention=convention,
        inputs=by_role,
        caches=caches,
        cache_dtype=first.dtype,
        logits=logits,
        vocab_size=_fixed(logits, 2),
        batch_size=by_role["inputs_embeds" if takes_vectors(by_role) else "input_ids"].shape[0],
        max_cache_len=None if convention == "optimum" else first.shape[2],
    )


def takes_vectors(inputs: Mapping[InputRole, TensorSpec]) -> bool:
    """Whether a decoder reads vectors, which something else makes of ids."""
    return "inputs_embeds" in inputs and "input_ids" not in inputs


def read_genai_names(decoder: Mapping[str, object]) -> DecoderNames:
    """Names out of the table `model.decoder` of a parsed `genai_config.json`."""
    inputs, outputs = _table(decoder, "inputs"), _table(decoder, "outputs")
    return DecoderNames(
        inputs={str(inputs[role]): role for role in _ROLES if role in inputs},
        past_key=str(inputs.get("past_key_names", "past_key_values.%d.key")),
        past_value=str(inputs.get("past_value_names", "past_key_values.%d.value")),
        present_key=str(outputs.get("present_key_names", "present.%d.key")),
        present_value=str(outputs.get("present_value_names", "present.%d.value")),
        logits=str(outputs.get("logits", "logits")),
    )


def _table(parent: Mapping[str, object], key: str) -> Mapping[str, object]:
    value = parent.get(key)
    return value if isinstance(value, Mapping) else {}


def _convention(inputs: Mapping[InputRole, TensorSpec], op_types: Collection[str]) -> Convention:
    if "write_indices" in inputs:
        return "scatter"
    return "genai" if "GroupQueryAttention" in op_types else "optimum"


def _require(convention: Convention, inputs: Mapping[InputRole, TensorSpec]) -> None:
    tokens: InputRole = "inputs_embeds" if takes_vectors(inputs) else "input_ids"
    needed: dict[Convention, tuple[InputRole, ...]] = {
        "genai": (tokens,),
        "optimum": (tokens, "attention_mask"),
        "scatter": (tokens, "position_ids", "write_indices"),
    }
    for role in needed[convention]:
        if role not in inputs:
            raise ConfigurationError(f"the decoder has no input {role!r} ({convention} convention)")
    if convention == "genai" and "attention_mask" not in inputs:
        for role in ("seqlens_k", "total_sequence_length"):
            if role not in inputs:
                raise ConfigurationError(
                    f"the decoder has neither the input 'attention_mask' nor {role!r}"
                )
    if inputs[tokens].shape[1:2] != (None,):
        raise ConfigurationError(
            f"the decoder's input {tokens!r} has shape {inputs[tokens].shape}; "
            "its sequence dimension must be free"
        )


def _pair_caches(
    past: Mapping[tuple[int, str], TensorSpec],
    present: Mapping[tuple[int, str], TensorSpec],
    head_dim: int | None,
) -> tuple[CacheTensor, ...]:
    if not past:
        raise ConfigurationError("the decoder has no past key and value inputs")
    num_layers = max(layer for layer, _ in past) + 1
    caches = []
    for place in [(layer, part) for layer in range(num_layers) for part in ("key", "value")]:
        if place not in past:
            raise ConfigurationError("the decoder has no past input for layer {} {}".format(*place))
        if place not in present:
            raise ConfigurationError(f"the decoder has no present output for {past[place].name!r}")
        spec = past[place]
        if spec.dtype != past[0, "key"].dtype:
            raise ConfigurationError(f"the decoder's {spec.name!r} differs in dtype from the first")
        caches.append(
            CacheTensor(spec.name, present[place].name, _fixed(spec, 1), _fixed(spec, 3, head_dim))
        )
    return tuple(caches)


def _find_logits(outputs: Sequence[TensorSpec], name: str) -> TensorSpec:
    for spec in outputs:
        if spec.name == name:
            return spec
    raise ConfigurationError(f"the decoder has no output {name!r}")


def _fixed(spec: TensorSpec, axis: int, otherwise: int | None = None) -> int:
    size = spec.shape[axis] if axis < len(spec.shape) else None
    if size is None:
        size = otherwise
    if size is None:
        raise ConfigurationError(
            f"the decoder's {spec.name!r} has shape {spec.shape}; dimension {axis} must be a number"
        )
    return size


def _cache_place(name: str, patterns: _Patterns) -> tuple[int, str] | None:
    for part, pattern in patterns:
        if match := re.fullmatch(pattern, name):
            return int(match[1]), part
    return None


def _past_patterns(names: DecoderNames | None) -> _Patterns:
    if names is None:
        return _PAST_PATTERNS
    return _templates(names.past_key, names.past_value)


def _present_patterns(names: DecoderNames | None) -> _Patterns:
    if names is None:
        return _PRESENT_PATTERNS
    return _templates(names.present_key, names.present_value)


def _templates(key: str, value: str) -> _Patterns:
    return tuple(
        (part, re.escape(template).replace("%d", r"(\d+)"))
        for part, template in (("key", key), ("value", value))
    )
