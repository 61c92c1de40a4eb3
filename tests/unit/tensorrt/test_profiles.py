"""The shapes that engines are optimised for are those that the runner asks for."""

from hypothesis import given
from hypothesis import strategies as st

from provider_core.decoder_io import CacheTensor, DecoderIO, TensorSpec
from provider_core.slots import round_rows
from provider_tensorrt.artefact import EngineLimits
from provider_tensorrt.builder import PROFILES, Shapes, make_profiles
from provider_tensorrt.candidate_graph import ALLOWED, INVERSE_TEMPERATURE
from provider_tensorrt.decoder_graph import WINDOW
from provider_tensorrt.shapes import MIN_LOGITS_ROWS, bitmask_bytes, round_window

IO = DecoderIO(
    convention="scatter",
    inputs={
        "input_ids": TensorSpec("ids", "int64", (None, None)),
        "position_ids": TensorSpec("positions", "int64", (None, None)),
        "write_indices": TensorSpec("starts", "int64", (None,)),
        "num_logits_to_keep": TensorSpec("kept", "int64", ()),
    },
    caches=(CacheTensor("past", "present", 2, 16),),
    cache_dtype="float16",
    logits=TensorSpec("logits", "float32", (None, None, 96)),
    vocab_size=96,
    batch_size=None,
    max_cache_len=None,
)


def contains(shapes: Shapes, shape: tuple[int, ...]) -> bool:
    """Whether a shape is one of those that a profile is for."""
    least, _, most = shapes
    return all(a <= b <= c for a, b, c in zip(least, shape, most, strict=True))


@given(
    st.integers(1, 300),
    st.integers(1, 70),
    st.integers(3, 600),
    st.integers(1, 70),
    st.integers(1, 300),
)
def test_every_step_is_within_a_profile(
    max_model_len: int, max_num_seqs: int, max_prefill_tokens: int, num_rows: int, longest: int
) -> None:
    """Whatever is running, and however long it has become."""
    limits = EngineLimits(
        max_model_len=max_model_len,
        max_num_seqs=max_num_seqs,
        max_prefill_tokens=max_prefill_tokens,
    )
    prefill, decode = make_profiles(IO, limits)
    rows = round_rows(min(num_rows, max_num_seqs), max_num_seqs)
    window = round_window(min(longest, max_model_len), max_model_len)

    assert contains(decode.shapes["ids"], (rows, 1))
    assert contains(decode.shapes["starts"], (rows,))
    assert contains(decode.shapes[ALLOWED], (rows, bitmask_bytes(IO.vocab_size)))
    assert contains(decode.shapes[INVERSE_TEMPERATURE], (rows,))
    assert contains(decode.shapes["past"], (rows, 2, max_model_len, 16))
    tokens = min(longest, max_prefill_tokens, max_model_len)
    assert contains(prefill.shapes["positions"], (1, tokens))
    assert contains(prefill.shapes["past"], (1, 2, max_model_len, 16))
    for profile in (prefill, decode):
        assert contains(profile.shapes[WINDOW], (window,))
        for shapes in profile.shapes.values():
            assert contains(shapes, shapes[1])


def test_only_as_many_logits_are_made_as_anybody_reads() -> None:
    """Of each token of a prefill they would take 300 MB at 152,000 ids."""
    limits = EngineLimits(max_model_len=4096, max_num_seqs=4, max_prefill_tokens=512)

    prefill, decode = make_profiles(IO, limits)

    assert len(PROFILES) == 2
    assert prefill.values == {"kept": (1, 1, MIN_LOGITS_ROWS)}
    assert decode.values == {"kept": (1, 1, 1)}
