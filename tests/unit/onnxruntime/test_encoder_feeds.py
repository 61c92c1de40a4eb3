"""What an encoder's graph is fed, and the arithmetic behind its outputs."""

import numpy as np
import pytest

from provider_core import ConfigurationError, EncoderRow
from provider_core.decoder_io import TensorSpec
from provider_onnxruntime.encoder import make_feeds, normalize, sigmoid

ROWS = [EncoderRow(np.array(ids, np.int32)) for ids in ([5, 6, 7], [8])]


def spec(name: str, dtype: str = "int64", shape: tuple[int | None, ...] = ()) -> TensorSpec:
    """An input."""
    return TensorSpec(name, dtype, shape)


def test_rows_are_padded_on_the_right() -> None:
    """With the model's own padding, in the graph's own dtype, and nothing it does not declare."""
    feeds = make_feeds([spec("input_ids"), spec("attention_mask", "int32")], ROWS, 1)
    assert feeds["input_ids"].tolist() == [[5, 6, 7], [8, 1, 1]]
    assert feeds["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
    assert [value.dtype for value in feeds.values()] == [np.int64, np.int32]


def test_decoders_that_became_encoders_get_positions_and_no_past() -> None:
    """`[n, heads, 0, head size]`."""
    past = spec("past_key_values.0.key", "float16", (None, 2, None, 4))
    feeds = make_feeds([spec("position_ids"), past], ROWS, 0)
    assert feeds["position_ids"].tolist() == [[0, 1, 2]] * 2
    assert feeds[past.name].shape == (2, 2, 0, 4)
    assert feeds[past.name].dtype == np.float16


def test_a_past_of_unknown_size_is_refused() -> None:
    """By the input's name."""
    with pytest.raises(ConfigurationError, match="key"):
        make_feeds([spec("past_key_values.0.key", "float32", (None, None, None, None))], ROWS, 0)


def test_a_vector_of_zeros_stays() -> None:
    """It has no direction."""
    vectors = np.array([[0, 0], [3, 4]], np.float32)
    assert np.allclose(normalize(vectors), [[0.0, 0.0], [0.6, 0.8]])


def test_the_sigmoid_does_not_overflow() -> None:
    """At either end."""
    logits = np.array([-200, 0, 200], np.float32)
    assert sigmoid(logits).tolist() == [0, 0.5, 1]
