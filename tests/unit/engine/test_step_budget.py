"""How many prompt tokens a step may have."""

from hypothesis import given
from hypothesis import strategies as st

from provider_core.engine.step_budget import MIN_TOKENS, StepBudget


def _settled(
    *, decode_s: float, token_s: float, target_itl_s: float = 0.1, max_tokens: int = 512
) -> StepBudget:
    """A budget on a machine whose speed it knows."""
    budget = StepBudget(max_tokens=max_tokens, target_itl_s=target_itl_s)
    for _ in range(50):
        budget.note_decode(decode_s)
        budget.note_prefill(100, 100 * token_s)
    return budget


def test_nothing_is_held_back_when_nothing_decodes() -> None:
    """Whatever a prompt token costs."""
    assert _settled(decode_s=0.05, token_s=0.01).num_tokens(is_decoding=False) == 512


def test_before_anything_is_measured_the_budget_is_whole() -> None:
    """There is nothing to cut by."""
    assert StepBudget(max_tokens=64, target_itl_s=0.1).num_tokens(is_decoding=True) == 64


@given(
    decode_s=st.floats(0.0001, 0.08),
    token_s=st.floats(1e-5, 0.0006),
    target_itl_s=st.floats(0.1, 1.0),
)
def test_a_step_keeps_the_target_and_uses_it(
    decode_s: float, token_s: float, target_itl_s: float
) -> None:
    """Decode and prefill fit into nine tenths of it, and sixteen more tokens would not."""
    budget = _settled(decode_s=decode_s, token_s=token_s, target_itl_s=target_itl_s)
    num_tokens = budget.num_tokens(is_decoding=True)
    room_s = 0.9 * target_itl_s
    if num_tokens > MIN_TOKENS:
        assert decode_s + num_tokens * token_s <= room_s * 1.001
    if num_tokens < 512:
        assert decode_s + (num_tokens + 16) * token_s >= room_s * 0.999
    assert num_tokens % 16 == 0


def test_a_slow_machine_still_advances_prompts() -> None:
    """By a floor, even if the decode alone takes longer than the target."""
    assert _settled(decode_s=0.5, token_s=0.1).num_tokens(is_decoding=True) == MIN_TOKENS
    tiny = _settled(decode_s=0.5, token_s=0.1, max_tokens=5)
    assert tiny.num_tokens(is_decoding=True) == 5


def test_it_follows_a_change_of_speed() -> None:
    """Within a few measurements, of decodes as of prompts; one hiccup does not empty it."""
    budget = _settled(decode_s=0.008, token_s=0.0005)
    assert budget.num_tokens(is_decoding=True) == 160
    budget.note_decode(0.1)
    assert budget.num_tokens(is_decoding=True) >= 96
    for _ in range(20):
        budget.note_decode(0.05)
    assert budget.num_tokens(is_decoding=True) == 80
    for _ in range(20):
        budget.note_prefill(40, 40 * 0.00025)
    assert budget.num_tokens(is_decoding=True) == 144


def test_short_calls_hardly_change_the_cost_of_a_token() -> None:
    """A call has a fixed cost; counted per token it would make a rest of two tokens look dear."""
    budget = _settled(decode_s=0.001, token_s=0.001)
    before = budget.num_tokens(is_decoding=True)
    budget.note_prefill(2, 0.012)
    assert budget.num_tokens(is_decoding=True) == before


def test_short_calls_do_not_set_the_cost_of_a_token() -> None:
    """However many there are, once longer ones are known; until then they are all one knows."""
    budget = _settled(decode_s=0.001, token_s=0.0005)
    before = budget.num_tokens(is_decoding=True)
    for _ in range(50):
        budget.note_prefill(4, 0.015)
    assert budget.num_tokens(is_decoding=True) == before
    fresh = StepBudget(max_tokens=512, target_itl_s=0.5)
    fresh.note_prefill(4, 0.008)
    assert fresh.num_tokens(is_decoding=True) == 224


def test_a_time_is_worth_the_tokens_computed_in_it() -> None:
    """Nothing before anything was measured."""
    assert StepBudget(max_tokens=512, target_itl_s=0.1).worth(5.0) == 0
    assert _settled(decode_s=0.01, token_s=1 / 1024).worth(0.25) == 256


@given(
    decode_s=st.floats(0.005, 0.08),
    token_s=st.floats(1e-4, 0.002),
    stale_s=st.floats(0.0, 0.15),
    start_s=st.floats(1e-4, 0.002),
)
def test_mixed_calls_come_to_last_as_long_as_they_may(
    decode_s: float, token_s: float, stale_s: float, start_s: float
) -> None:
    """Whatever a decode was thought to take: none is run alone while prompts never end."""
    budget = StepBudget(max_tokens=10_000, target_itl_s=0.2)
    budget.note_decode(stale_s)
    budget.note_prefill(100, 100 * start_s)
    calls = []
    for _ in range(100):
        num_tokens = budget.num_tokens(is_decoding=True)
        calls.append(decode_s + num_tokens * token_s)
        share_s = budget.decode_share_s(num_tokens, calls[-1])
        budget.note_prefill(num_tokens, calls[-1] - share_s)
    least_s = decode_s + MIN_TOKENS * token_s
    assert max(calls[50:]) <= max(0.18 * 1.15, least_s * 1.001)
    assert stale_s > 0.17 or min(calls[50:]) >= min(0.18 * 0.7, 0.18 - 16 * token_s)
