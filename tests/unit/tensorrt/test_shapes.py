"""Few shapes, each large enough, and pieces that add up."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provider_tensorrt.shapes import round_window, split_prefill


@given(st.integers(1, 5000), st.integers(1, 5000))
def test_a_window_holds_the_longest_text_and_no_more_than_the_cache(
    num_positions: int, max_model_len: int
) -> None:
    """Whatever the numbers."""
    num_positions = min(num_positions, max_model_len)
    assert num_positions <= round_window(num_positions, max_model_len) <= max_model_len


def test_windows_have_few_sizes() -> None:
    """Powers of two, and the cache's whole length, which need not be one."""
    assert {round_window(n, 300) for n in range(1, 301)} == {64, 128, 256, 300}


@given(
    st.integers(1, 400),
    st.integers(0, 400),
    st.integers(3, 200),
    st.integers(3, 200),
)
def test_pieces_of_a_prefill_make_it_up(
    num_tokens: int, num_logits: int, max_tokens: int, max_logits: int
) -> None:
    """In order, none too large, none of a single token unless that is all there is."""
    num_logits = min(num_logits, num_tokens)
    pieces = list(
        split_prefill(num_tokens, num_logits, max_tokens=max_tokens, max_logits=max_logits)
    )
    starts, ends, logits = zip(*pieces, strict=True)
    assert (starts[0], ends[-1]) == (0, num_tokens)
    assert starts[1:] == ends[:-1]
    assert sum(logits) == num_logits
    assert max(logits) <= max(max_logits, 0)
    sizes = [end - start for start, end, _ in pieces]
    assert max(sizes) <= max_tokens
    assert min(sizes) >= min(2, num_tokens)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((8, 1, 8, 16), [(0, 8, 1)]),
        ((9, 1, 8, 16), [(0, 7, 0), (7, 9, 1)]),
        ((20, 0, 8, 16), [(0, 8, 0), (8, 16, 0), (16, 20, 0)]),
        ((10, 6, 8, 4), [(0, 4, 0), (4, 8, 4), (8, 10, 2)]),
    ],
)
def test_a_prefill_is_cut_where_its_limits_are(
    arguments: tuple[int, int, int, int], expected: list[tuple[int, int, int]]
) -> None:
    """First, end and logits of each piece."""
    num_tokens, num_logits, max_tokens, max_logits = arguments
    pieces = split_prefill(num_tokens, num_logits, max_tokens=max_tokens, max_logits=max_logits)
    assert list(pieces) == expected
