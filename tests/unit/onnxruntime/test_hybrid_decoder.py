"""Which of two weight sets runs a step."""

import numpy as np
import numpy.typing as npt
import pytest

from provider_onnxruntime.hybrid_decoder import HybridDecoder


class Named:
    """A decoder whose logits are its number."""

    def __init__(self, number: int) -> None:
        self._number = number
        self.is_closed = False

    def run(
        self,
        first_slot: int,
        token_ids: npt.NDArray[np.int64],
        starts: npt.NDArray[np.int32],
        num_logits: int,
    ) -> npt.NDArray[np.float32]:
        """One value a row."""
        return np.full((len(token_ids) * num_logits, 1), self._number, np.float32)

    def close(self) -> None:
        """Remember it."""
        self.is_closed = True


@pytest.mark.parametrize(
    ("num_rows", "num_new", "expected"),
    [(1, 1, 1), (4, 1, 1), (5, 1, 2), (32, 1, 2), (1, 2, 2), (1, 5, 2), (2, 2, 2)],
)
def test_few_rows_of_one_token_are_decoded_apart(
    num_rows: int, num_new: int, expected: int
) -> None:
    """Up to four here; chunks of prompts and drafts are none of them, however short."""
    decoder = HybridDecoder(Named(1), Named(2), 4)
    ids, starts = np.zeros((num_rows, num_new), np.int64), np.zeros(num_rows, np.int32)
    assert (decoder.run(0, ids, starts, 1) == expected).all()


def test_closing_closes_both() -> None:
    """Both hold memory of the pool."""
    few, many = Named(1), Named(2)
    HybridDecoder(few, many, 4).close()
    assert few.is_closed
    assert many.is_closed
