"""Values of a decoder's small inputs for one step, by role."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from provider_core.decoder_io import DecoderIO, InputRole, TensorSpec

Ints = npt.NDArray[np.int32]
Fill = Callable[[npt.NDArray[Any], Ints, int], None]


def _fill_position_ids(out: npt.NDArray[Any], starts: Ints, num_new: int) -> None:
    np.add(starts[:, np.newaxis], np.arange(num_new), out=out, casting="unsafe")


def _fill_seqlens_k(out: npt.NDArray[Any], starts: Ints, num_new: int) -> None:
    np.add(starts, num_new - 1, out=out, casting="unsafe")


def _fill_nonpad_kv_seqlen(out: npt.NDArray[Any], starts: Ints, num_new: int) -> None:
    np.add(starts, num_new, out=out, casting="unsafe")


def _fill_write_indices(out: npt.NDArray[Any], starts: Ints, _num_new: int) -> None:
    out[...] = starts


def _fill_total_sequence_length(out: npt.NDArray[Any], starts: Ints, num_new: int) -> None:
    out[...] = starts.max() + num_new


def _fill_use_cache_branch(out: npt.NDArray[Any], starts: Ints, _num_new: int) -> None:
    out[...] = starts.max() > 0


FILLS: Mapping[InputRole, Fill] = {
    "position_ids": _fill_position_ids,
    "seqlens_k": _fill_seqlens_k,
    "nonpad_kv_seqlen": _fill_nonpad_kv_seqlen,
    "write_indices": _fill_write_indices,
    "total_sequence_length": _fill_total_sequence_length,
    "use_cache_branch": _fill_use_cache_branch,
}
"""What follows from where each row starts; each takes `(out, starts, tokens per row)`."""


def input_shape(role: InputRole, spec: TensorSpec, num_rows: int, num_new: int) -> tuple[int, ...]:
    """Shape of a small input in a step of `num_rows` times `num_new` tokens."""
    if role in {"input_ids", "position_ids"}:
        return (num_rows, num_new)
    if role in {"seqlens_k", "nonpad_kv_seqlen", "write_indices"}:
        return (num_rows, 1)[: max(len(spec.shape), 1)]  # some exporters keep a second axis
    return (1,) * len(spec.shape)


def make_inputs(io: DecoderIO, num_rows: int, num_new: int) -> dict[InputRole, npt.NDArray[Any]]:
    """Arrays for all small inputs; `attention_mask` and `inputs_embeds` are new with every step."""
    return {
        role: np.zeros(input_shape(role, spec, num_rows, num_new), spec.dtype)
        for role, spec in io.inputs.items()
        if role not in {"attention_mask", "inputs_embeds"}
    }


def fill_inputs(
    arrays: Mapping[InputRole, npt.NDArray[Any]],
    token_ids: npt.NDArray[np.int64],
    starts: Ints,
) -> None:
    """Write one step's values.

    Args:
        arrays: As `make_inputs` made them.
        token_ids: `[n, s]`.
        starts: `[n]`, the position of each row's first new token.
    """
    num_new = token_ids.shape[1]
    for role, array in arrays.items():
        if role == "input_ids":
            array[...] = token_ids
        elif fill := FILLS.get(role):
            rows = array.reshape(-1) if role == "seqlens_k" else array
            fill(rows, starts, num_new)


def make_length_mask(lengths: Ints, dtype: str) -> npt.NDArray[Any]:
    """`[n, longest]`: 1 for each row's own positions, the new ones included, which come first."""
    return (np.arange(lengths.max()) < lengths[:, np.newaxis]).astype(dtype)
