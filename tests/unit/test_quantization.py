"""Integers and scales: bounds on the error, exact cases, and the bytes that ONNX stores."""

import numpy as np
import numpy.typing as npt
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from provider_core.quantization import (
    dequantize_blocks,
    dequantize_channels,
    pack_int4,
    quantize_blocks,
    quantize_channels,
    unpack_int4,
)

Matrix = npt.NDArray[np.float32]
SHAPES = st.tuples(st.integers(1, 70), st.integers(1, 9))


def random_matrix(shape: tuple[int, int], seed: int = 0) -> Matrix:
    """Normally distributed, float32."""
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def squared_errors(weight: Matrix, dequantized: Matrix, block_size: int) -> Matrix:
    """Of each block, `[ceil(in / block_size), out]`."""
    starts = np.arange(0, len(weight), block_size)
    return np.add.reduceat(np.square(dequantized - weight), starts, axis=0)


@given(shape=SHAPES, block_size=st.sampled_from([1, 16, 32, 128]), seed=st.integers(0, 99))
def test_no_block_loses_more_than_the_textbook_scale_would(
    shape: tuple[int, int], block_size: int, seed: int
) -> None:
    """Against `max(abs(w)) / 7`, whatever the shape: short last blocks, one long block."""
    weight = random_matrix(shape, seed)
    values, scales = quantize_blocks(weight, block_size)
    assert values.shape == shape
    assert scales.shape == (-(-shape[0] // block_size), shape[1])
    assert values.min() >= -8
    assert values.max() <= 7
    assert (scales > 0).all()
    largest = np.maximum.reduceat(np.abs(weight), np.arange(0, len(weight), block_size), axis=0)
    steps = np.repeat(largest / np.float32(7), block_size, axis=0)[: len(weight)]
    rounded = (np.rint(weight / steps) * steps).astype(np.float32)
    textbook = squared_errors(weight, rounded, block_size)
    ours = squared_errors(weight, dequantize_blocks(values, scales, block_size), block_size)
    assert (ours <= textbook * 1.001 + 1e-9).all()


@pytest.mark.parametrize("block_size", [32, 128])
def test_normal_weights_lose_a_tenth_less(block_size: int) -> None:
    """The reason for trying several scales; 10 % of the squared error."""
    weight = random_matrix((256, 64))
    textbook = np.repeat(np.abs(weight.reshape(-1, block_size, 64)).max(axis=1) / 7, block_size, 0)
    ours = dequantize_blocks(*quantize_blocks(weight, block_size), block_size)
    naive = np.rint(weight / textbook) * textbook
    assert np.square(ours - weight).sum() < 0.9 * np.square(naive - weight).sum()


@given(shape=SHAPES, block_size=st.sampled_from([16, 32]), seed=st.integers(0, 99))
def test_what_int4_can_express_is_kept(shape: tuple[int, int], block_size: int, seed: int) -> None:
    """Blocks that use their whole range come back."""
    values = np.random.default_rng(seed).integers(-7, 8, shape).astype(np.int8)
    values[::block_size] = 7
    scales = np.full((-(-shape[0] // block_size), shape[1]), 0.25, np.float32)
    weight = dequantize_blocks(values, scales, block_size)
    again = dequantize_blocks(*quantize_blocks(weight, block_size), block_size)
    np.testing.assert_allclose(again, weight, rtol=1e-5)


@given(shape=SHAPES, seed=st.integers(0, 99))
def test_channels_are_off_by_half_a_step_at_most(shape: tuple[int, int], seed: int) -> None:
    """And never use -128."""
    weight = random_matrix(shape, seed)
    values, scales = quantize_channels(weight)
    assert values.min() >= -127
    off = np.abs(dequantize_channels(values, scales) - weight)
    assert (off <= 0.5001 * scales).all()


def test_many_columns_are_quantised_as_few_are() -> None:
    """A matrix is cut into parts, which no value may depend on; nor on the memory order."""
    weight = random_matrix((96, 9000))
    for quantize in (lambda w: quantize_blocks(w, 32), quantize_channels):
        values, scales = quantize(weight)
        some, some_scales = quantize(weight[:, 5000:5003])
        np.testing.assert_array_equal(values[:, 5000:5003], some)
        np.testing.assert_array_equal(scales[..., 5000:5003], some_scales)
        turned, turned_scales = quantize(np.asfortranarray(weight))
        np.testing.assert_array_equal(turned, values)
        np.testing.assert_array_equal(turned_scales, scales)
        assert turned.flags.f_contiguous


@pytest.mark.parametrize("size", [0, 1e-45, 1e-38, 1e-31, 1e-29, 1e-15, 1e30])
def test_weights_of_any_size_have_usable_scales(size: float) -> None:
    """Dead outputs and blocks too: what is too small to matter becomes 0."""
    weight = random_matrix((64, 3)).clip(-3, 3) * np.float32(size)
    for (values, scales), dequantized in (
        (result := quantize_blocks(weight, 32), dequantize_blocks(*result, 32)),
        (result := quantize_channels(weight), dequantize_channels(*result)),
    ):
        assert (scales > 0).all()
        assert np.abs(values).max() <= 127
        if size < 1e-30:
            assert not values.any()
        else:
            np.testing.assert_allclose(dequantized, weight, atol=0.6 * size)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_is_refused(value: float) -> None:
    """Instead of becoming a scale."""
    weight = random_matrix((32, 4))
    weight[3, 2] = value
    with pytest.raises(ValueError, match="infinite or not a number"):
        quantize_blocks(weight, 32)
    with pytest.raises(ValueError, match="infinite or not a number"):
        quantize_channels(weight)


def test_other_arguments_are_refused() -> None:
    """Vectors, nothing at all, other widths."""
    with pytest.raises(ValueError, match="not a float32 matrix"):
        quantize_channels(np.zeros((0, 4), np.float32))
    with pytest.raises(ValueError, match="not a float32 matrix"):
        quantize_blocks(np.zeros(4, np.float32), 32)
    with pytest.raises(ValueError, match="of 3 bits"):
        quantize_blocks(random_matrix((4, 4)), 32, bits=3)
    with pytest.raises(ValueError, match="blocks of 0"):
        quantize_blocks(random_matrix((4, 4)), 0)


@given(shape=st.tuples(st.integers(1, 7), st.integers(1, 7)), seed=st.integers(0, 99))
def test_packed_values_are_those_onnx_reads(shape: tuple[int, int], seed: int) -> None:
    """Odd sizes too; and they come back."""
    values = np.random.default_rng(seed).integers(-8, 8, shape).astype(np.int8)
    packed = pack_int4(values)
    tensor = helper.make_tensor("w", TensorProto.INT4, shape, packed.tobytes(), raw=True)
    np.testing.assert_array_equal(numpy_helper.to_array(tensor).astype(np.int8), values)
    np.testing.assert_array_equal(unpack_int4(packed, shape), values)


def test_values_that_do_not_fill_their_shape_are_refused() -> None:
    """Three bytes are five or six values."""
    with pytest.raises(ValueError, match="3 bytes are not 4 values"):
        unpack_int4(np.zeros(3, np.uint8), (2, 2))


@pytest.mark.parametrize("num_in", [256, 80])
@pytest.mark.parametrize(("bits", "block_size"), [(4, 32), (4, 128), (8, 0)])
def test_dequantized_weights_are_those_of_dequantize_linear(
    num_in: int, bits: int, block_size: int
) -> None:
    """As ONNX Runtime computes the operator, with a short last block too."""
    weight = random_matrix((num_in, 5))
    if bits == 4:
        values, scales = quantize_blocks(weight, block_size)
        expected = dequantize_blocks(values, scales, block_size)
        stored = helper.make_tensor(
            "w", TensorProto.INT4, weight.shape, pack_int4(values).tobytes(), raw=True
        )
    else:
        values, scales = quantize_channels(weight)
        expected = dequantize_channels(values, scales)
        stored = numpy_helper.from_array(values, "w")
    node = helper.make_node(
        "DequantizeLinear", ["w", "s"], ["y"], axis=int(bits == 8), block_size=block_size
    )
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, weight.shape)
    graph = helper.make_graph(
        [node], "dequantize", [], [output], [stored, numpy_helper.from_array(scales, "s")]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    np.testing.assert_array_equal(session.run(None, {})[0], expected)
