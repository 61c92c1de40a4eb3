"""The encoder: rows padded to the longest, one call of the session, pooling in numpy."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from provider_core import ConfigurationError, EncoderInfo, EncoderRow
from provider_core.decoder_io import TensorSpec
from provider_onnxruntime.encoder_folder import EncoderFile
from provider_onnxruntime.session import open_session
from provider_onnxruntime.settings import OnnxRuntimeSettings, Pooling

Floats = npt.NDArray[np.float32]
PROBE_LEN = 8  # tokens of the row that tells the size of vectors


class OnnxRuntimeEncoder:
    """Runs an exported encoder.

    Args:
        file: Checked, with what its folder says.
        settings: How to run it.
        max_num_seqs: Most rows of one call.
        max_model_len: Most tokens of a row, if the folder sets no lower limit.

    Raises:
        ConfigurationError: The session cannot be made, or gives vectors of another kind.
    """

    def __init__(
        self,
        file: EncoderFile,
        settings: OnnxRuntimeSettings,
        *,
        max_num_seqs: int,
        max_model_len: int,
    ) -> None:
        self._file = file
        self._sessions = [open_session(file.path, settings)]
        max_model_len = min(max_model_len, file.max_model_len or max_model_len)
        probe = np.full(min(PROBE_LEN, max_model_len), file.pad_token_id, np.int32)
        size = self._probe(EncoderRow(probe))
        self._info = EncoderInfo(
            backend="onnxruntime",
            backend_version=ort.__version__,
            device="cpu" if settings.provider == "cpu" else f"cuda:{settings.device_id}",
            max_num_seqs=max_num_seqs,
            max_model_len=max_model_len,
            vocab_size=file.vocab_size,
            precision=file.precision,
            task="score" if file.kind == "scores" else "embed",
            embedding_size=size,
            shorter_sizes=_shorter_sizes(file, size),
            is_normalized=file.normalizes,
        )

    @property
    def info(self) -> EncoderInfo:
        """Facts that do not change while the encoder lives."""
        return self._info

    def warm_up(self) -> None:
        """Run two rows of different lengths, so that the session has its buffers."""
        length = min(self._info.max_model_len, 4 * PROBE_LEN)
        rows = [EncoderRow(np.zeros(size, np.int32)) for size in {1, length}]
        self.encode(rows)

    def encode(self, rows: Sequence[EncoderRow]) -> Floats:
        """Compute rows; float32 `[n, size]`, or `[n]` for scores."""
        feeds = make_feeds(self._file.inputs, rows, self._file.pad_token_id)
        [output] = self._sessions[0].run([self._file.output.name], feeds)
        values = output.astype(np.float32, copy=False)
        if self._file.kind == "scores":
            scores = values[:, 0]
            return scores if self._file.activation == "identity" else sigmoid(scores)
        if self._file.pooling is not None:
            lengths = np.array([len(row) for row in rows])
            values = pool(values, lengths, self._file.pooling)
        return normalize(values) if self._file.normalizes else values

    def close(self) -> None:
        """Let the session go."""
        self._sessions.clear()

    def _probe(self, row: EncoderRow) -> int:
        """The size of a vector; 0 for scores."""
        try:
            vectors = self.encode([row])
        except Exception as error:  # the runtime raises a class of its own per status code
            raise ConfigurationError(f"{self._file.path} cannot encode a row: {error}") from error
        if vectors.ndim == 1:
            return 0
        if vectors.ndim != 2:
            raise ConfigurationError(
                f"{self._file.path} gives {self._file.output.name} of {vectors.ndim} dimensions"
            )
        return int(vectors.shape[1])


def make_feeds(
    inputs: Sequence[TensorSpec], rows: Sequence[EncoderRow], pad_token_id: int
) -> dict[str, npt.NDArray[Any]]:
    """What the graph is fed: rows padded on the right, `[n, longest]`.

    Args:
        inputs: Of the graph.
        rows: At least one.
        pad_token_id: Fills them.
    """
    shape = len(rows), max(map(len, rows))
    values: dict[str, npt.NDArray[Any]] = {
        "input_ids": np.full(shape, pad_token_id, np.int64),
        "attention_mask": np.zeros(shape, np.int64),
        "token_type_ids": np.zeros(shape, np.int64),
        "position_ids": np.broadcast_to(np.arange(shape[1]), shape),
    }
    for index, row in enumerate(rows):
        values["input_ids"][index, : len(row)] = row.token_ids
        values["attention_mask"][index, : len(row)] = 1
        if row.token_type_ids is not None:
            values["token_type_ids"][index, : len(row)] = row.token_type_ids
    return {
        spec.name: values[spec.name].astype(spec.dtype, copy=False)
        if spec.name in values
        else _empty_past(spec, len(rows))
        for spec in inputs
    }


def _empty_past(spec: TensorSpec, num_rows: int) -> npt.NDArray[Any]:
    """No keys and values: `[n, heads, 0, head size]`."""
    _, num_heads, _, head_dim = spec.shape
    if num_heads is None or head_dim is None:
        raise ConfigurationError(f"the encoder's input {spec.name} has no fixed size of heads")
    return np.zeros((num_rows, num_heads, 0, head_dim), spec.dtype)


def pool(tokens: Floats, lengths: npt.NDArray[np.int64], pooling: Pooling) -> Floats:
    """One vector of each row's tokens.

    Args:
        tokens: float32 `[n, s, size]`.
        lengths: int64 `[n]`; what is behind is padding.
        pooling: One of Sentence Transformers' modes.

    Returns:
        float32 `[n, size]`.
    """
    return POOLINGS[pooling](tokens, lengths)


def _weigh(tokens: Floats, weights: npt.NDArray[Any], totals: npt.NDArray[Any]) -> Floats:
    """Sum of tokens times weights `[n, s]`, divided by totals `[n]`."""
    sums = weights.astype(np.float32)[:, np.newaxis] @ tokens
    return sums[:, 0] / totals.astype(np.float32)[:, np.newaxis]


def _mask(tokens: Floats, lengths: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    return np.arange(tokens.shape[1]) < lengths[:, np.newaxis]


def _pool_weightedmean(tokens: Floats, lengths: npt.NDArray[np.int64]) -> Floats:
    weights = (np.arange(tokens.shape[1]) + 1) * _mask(tokens, lengths)
    return _weigh(tokens, weights, weights.sum(axis=1))


def _pool_max(tokens: Floats, lengths: npt.NDArray[np.int64]) -> Floats:
    lowest = np.float32(-np.inf)
    best: Floats = np.where(_mask(tokens, lengths)[..., np.newaxis], tokens, lowest).max(axis=1)
    return best


POOLINGS: Mapping[Pooling, Callable[[Floats, npt.NDArray[np.int64]], Floats]] = {
    "cls": lambda tokens, _: tokens[:, 0],
    "mean": lambda tokens, lengths: _weigh(tokens, _mask(tokens, lengths), lengths),
    "mean_sqrt_len": lambda tokens, lengths: _weigh(
        tokens, _mask(tokens, lengths), np.sqrt(lengths)
    ),
    "weightedmean": _pool_weightedmean,
    "max": _pool_max,
    "lasttoken": lambda tokens, lengths: tokens[np.arange(len(lengths)), lengths - 1],
}
"""Sentence Transformers' modes: tokens and lengths to one vector a row."""


def normalize(vectors: Floats) -> Floats:
    """Bring vectors `[n, size]` to length 1; a vector of zeros stays."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    normalized: Floats = vectors / np.maximum(lengths, np.float32(1e-12))
    return normalized


def sigmoid(logits: Floats) -> Floats:
    """The logistic function, without overflow."""
    scores: Floats = np.float32(0.5) * (np.tanh(np.float32(0.5) * logits) + np.float32(1))
    return scores


def _shorter_sizes(file: EncoderFile, size: int) -> Sequence[int]:
    if file.shorter_sizes is None:
        return range(1, size)
    return tuple(shorter for shorter in file.shorter_sizes if shorter < size)
