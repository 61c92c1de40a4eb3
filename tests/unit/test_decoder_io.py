"""Telling a decoder's convention and its inputs from the graph, and naming what is wrong."""

from collections.abc import Sequence

import pytest

from provider_core.decoder_io import (
    Convention,
    DecoderIO,
    TensorSpec,
    describe_decoder,
    read_genai_names,
)
from provider_core.errors import ConfigurationError

CACHE = (None, 2, None, 16)
LOGITS = TensorSpec("logits", "float32", (None, None, 96))
IDS = TensorSpec("input_ids", "int64", (None, None))
MASK = TensorSpec("attention_mask", "int64", (None, None))
POSITIONS = TensorSpec("position_ids", "int64", (None, None))
LENGTHS = [
    TensorSpec("seqlens_k", "int32", (None,)),
    TensorSpec("total_sequence_length", "int32", ()),
]


def caches(template: str, shape: tuple[int | None, ...] = CACHE) -> list[TensorSpec]:
    """Cache tensors of two layers."""
    return [
        TensorSpec(template.format(layer=layer, part=part), "float32", shape)
        for layer in range(2)
        for part in ("key", "value")
    ]


PAST, PRESENT = caches("past_key_values.{layer}.{part}"), caches("present.{layer}.{part}")


def describe(
    *inputs: TensorSpec,
    op_types: Sequence[str] = (),
    past: Sequence[TensorSpec] = PAST,
    outputs: Sequence[TensorSpec] = (LOGITS, *PRESENT),
) -> DecoderIO:
    """Describe a decoder of two layers."""
    return describe_decoder([*inputs, *past], outputs, op_types)


@pytest.mark.parametrize(
    ("inputs", "op_types", "expected"),
    [
        ([IDS, *LENGTHS], ["GroupQueryAttention"], "genai"),
        ([IDS, MASK], ["GroupQueryAttention"], "genai"),
        ([IDS, MASK, POSITIONS], ["GroupQueryAttention"], "genai"),
        ([IDS, MASK, POSITIONS], ["MatMul"], "optimum"),
        ([IDS, MASK], ["MatMul"], "optimum"),
        (
            [IDS, POSITIONS, TensorSpec("write_indices", "int64", (None,))],
            ["TensorScatter"],
            "scatter",
        ),
    ],
)
def test_the_graph_tells_the_convention(
    inputs: list[TensorSpec], op_types: list[str], expected: Convention
) -> None:
    """By its operators and inputs alone."""
    assert describe(*inputs, op_types=op_types).convention == expected


def test_caches_are_paired_in_layer_order() -> None:
    """Key and value of each layer in turn, whatever the order of the graph's lists."""
    io = describe(IDS, MASK, past=PAST[::-1], outputs=(*PRESENT[::-1], LOGITS))
    assert [(cache.past, cache.present) for cache in io.caches] == [
        (past.name, present.name) for past, present in zip(PAST, PRESENT, strict=True)
    ]
    assert (io.caches[0].num_heads, io.caches[0].head_dim) == (2, 16)


def test_free_dimensions_are_none() -> None:
    """A graph that takes any batch and any length says so."""
    io = describe(IDS, *LENGTHS, op_types=["GroupQueryAttention"])
    assert (io.batch_size, io.max_cache_len, io.vocab_size) == (None, None, 96)


def test_fixed_dimensions_are_numbers() -> None:
    """A graph made for one row of 128 positions says so."""
    fixed = caches("past_key_values.{layer}.{part}", (1, 2, 128, 16))
    ids = TensorSpec("input_ids", "int64", (1, None))
    io = describe(ids, *LENGTHS, op_types=["GroupQueryAttention"], past=fixed)
    assert (io.batch_size, io.max_cache_len) == (1, 128)


@pytest.mark.parametrize("name", ["num_logits_to_keep", "logits_to_keep"])
def test_known_synonyms_have_one_role(name: str) -> None:
    """Exporters of different years spell it differently."""
    io = describe(IDS, MASK, TensorSpec(name, "int64", ()))
    assert io.inputs["num_logits_to_keep"].name == name


@pytest.mark.parametrize(
    ("inputs", "op_types", "complaint"),
    [
        ([IDS, MASK, TensorSpec("pixel_values", "float32", (None,))], [], "'pixel_values'"),
        ([MASK], [], "no input 'input_ids'"),
        ([IDS], [], "no input 'attention_mask'"),
        ([IDS], ["GroupQueryAttention"], "neither the input 'attention_mask' nor 'seqlens_k'"),
        ([IDS, LENGTHS[0]], ["GroupQueryAttention"], "nor 'total_sequence_length'"),
        ([IDS, TensorSpec("write_indices", "int64", (None,))], [], "no input 'position_ids'"),
        ([TensorSpec("input_ids", "int64", (None, 64)), MASK], [], "must be free"),
    ],
)
def test_a_missing_or_unknown_input_is_named(
    inputs: list[TensorSpec], op_types: list[str], complaint: str
) -> None:
    """The message says which."""
    with pytest.raises(ConfigurationError, match=complaint):
        describe(*inputs, op_types=op_types)


@pytest.mark.parametrize(
    ("past", "outputs", "complaint"),
    [
        ([], [LOGITS], "no past key and value inputs"),
        (PAST[:3], [LOGITS, *PRESENT], "no past input for layer 1 value"),
        (PAST, [LOGITS, *PRESENT[:3]], r"no present output for 'past_key_values\.1\.value'"),
        (PAST, PRESENT, "no output 'logits'"),
        (
            caches("past_key_values.{layer}.{part}", (None, None, None, 16)),
            [LOGITS, *PRESENT],
            "dimension 1 must be a number",
        ),
        (
            [*PAST[:3], TensorSpec("past_key_values.1.value", "float16", CACHE)],
            [LOGITS, *PRESENT],
            "differs in dtype",
        ),
    ],
)
def test_what_is_wrong_with_the_caches_is_named(
    past: list[TensorSpec], outputs: list[TensorSpec], complaint: str
) -> None:
    """The message says which tensor."""
    with pytest.raises(ConfigurationError, match=complaint):
        describe(IDS, MASK, past=past, outputs=outputs)


def test_an_open_head_dimension_is_taken_from_outside() -> None:
    """The graphs of genai's builder leave it open; what the graph says itself wins."""
    open_past = caches("past_key_values.{layer}.{part}", (None, 2, None, None))
    for past, expected in ((open_past, 64), (PAST, 16)):
        io = describe_decoder([IDS, MASK, *past], [LOGITS, *PRESENT], [], head_dim=64)
        assert [cache.head_dim for cache in io.caches] == [expected] * 4
    with pytest.raises(ConfigurationError, match="dimension 3 must be a number"):
        describe(IDS, MASK, past=open_past)


def test_genai_config_renames() -> None:
    """Templates and names of genai_config.json find renamed tensors."""
    names = read_genai_names(
        {
            "inputs": {
                "input_ids": "tokens",
                "attention_mask": "mask",
                "past_key_names": "past_key_%d_in",
                "past_value_names": "past_value_%d_in",
            },
            "outputs": {
                "logits": "scores",
                "present_key_names": "past_key_%d_out",
                "present_value_names": "past_value_%d_out",
            },
        }
    )
    io = describe_decoder(
        [
            TensorSpec("tokens", "int32", (None, None)),
            TensorSpec("mask", "int32", (None, None)),
            *caches("past_{part}_{layer}_in"),
        ],
        [TensorSpec("scores", "float32", (None, None, 96)), *caches("past_{part}_{layer}_out")],
        ["GroupQueryAttention"],
        names,
    )
    assert io.inputs["input_ids"].name == "tokens"
    assert io.inputs["attention_mask"].name == "mask"
    assert io.logits.name == "scores"
    assert io.caches[3].present == "past_value_1_out"
