"""Where vectors stand in a prompt."""

import numpy as np

from provider_core.server.images import place_vectors


def test_each_placeholder_is_repeated_for_its_vectors() -> None:
    """Positions are those of the longer prompt."""
    vectors = [np.full((2, 4), 1, np.float32), np.full((3, 4), 2, np.float32)]
    ids, embeddings = place_vectors((5, 9, 6, 9), 9, vectors)
    assert ids == (5, 9, 9, 6, 9, 9, 9)
    assert [position for position, _ in embeddings] == [1, 4]
    assert [np.asarray(values).tolist() for _, values in embeddings] == [
        [[1.0] * 4] * 2,
        [[2.0] * 4] * 3,
    ]
