"""What a plan says of time and money, against sums done by hand."""

import pytest

from provider_core.planning.costs import StepCosts
from provider_core.planning.fleet import Scaling
from provider_core.planning.forecast import Forecast, Terms, forecast
from provider_core.planning.replica import ReplicaSpec
from provider_core.planning.traffic import Arrival

SPEC = ReplicaSpec(costs=StepCosts(call_s=0.1), slots=4)  # 0.1 s a token, and a prompt is one call
TERMS = Terms(price_per_hour=3.6, prompt_price_ratio=0.25)  # 0.001 USD a second


def plan(arrivals: list[Arrival], scaling: Scaling, duration_s: float) -> Forecast:
    """What it comes to."""
    return forecast(arrivals, SPEC, scaling, TERMS, duration_s=duration_s)


def test_prices_of_a_replica_that_is_always_there() -> None:
    """An hour of it, for ten answers of 100 tokens to prompts of 400."""
    always = Scaling(min_replicas=1, max_replicas=1, target_ongoing=4)
    found = plan([Arrival(60.0 * number, 400, 100) for number in range(10)], always, 3600)

    assert found.cost == pytest.approx(3.60)
    assert (found.prompt_tokens, found.output_tokens) == (4000, 1000)
    assert found.cost_per_million_output_tokens == pytest.approx(3600)  # 3.60 / 1,000 * 1e6
    assert found.cost_per_million_tokens == pytest.approx(720)  # 3.60 / 5,000 * 1e6
    # An output token at p and a prompt token at p / 4: 1,000 p + 4,000 p / 4 = 3.60
    assert found.break_even_output_price == pytest.approx(1800)
    assert found.break_even_prompt_price == pytest.approx(450)
    assert found.utilisation == pytest.approx(10 * 10 / 3600)  # 100 calls of 0.1 s each
    assert found.slot_utilisation == pytest.approx(10 * 9.9 / (4 * 3600))


def test_replicas_and_cost_of_a_burst_from_zero() -> None:
    """Eight at once, four to a replica: both start, serve, wait for the time-out, and stop.

    Ready at 20 s. Four prompts are four calls, until 20.4 s, and then 50 decodes of all rows until
    25.4 s. For 30 s nobody is wanted, and all that time is paid.
    """
    elastic = Scaling(
        min_replicas=0,
        max_replicas=9,
        target_ongoing=4,
        max_ongoing=4,
        cold_start_s=20,
        idle_timeout_s=30,
    )
    found = plan([Arrival(0.0, 8, 51) for _ in range(8)], elastic, 600)

    assert found.cold_share == 1
    assert found.ttft.curve[0] == pytest.approx(20.1)
    assert found.ttft.curve[-1] == pytest.approx(20.4)
    assert found.e2e.curve[-1] == pytest.approx(25.4)
    assert [size for _, size in found.sizes] == [0, 1, 2, 1, 0]
    assert [at_s for at_s, _ in found.sizes] == pytest.approx([0, 0, 0, 55.4, 55.4])
    assert found.mean_replicas == pytest.approx(2 * 55.4 / 600)
    assert found.cost == pytest.approx(0.001 * 2 * 55.4)


def test_a_second_replica_is_paid_from_its_start_to_its_end() -> None:
    """One is always there, and full until 100.3 s; a fifth request at 100 s wants another.

    Of the four the first is a step ahead: a prompt until 0.1 s, a decode, three more prompts until
    0.5 s, 998 decodes until 100.3 s. From then on one replica is enough, and 10 s later there is
    one. The fifth has the slot, but waits for the decode that ends the other three, at 100.4 s.
    """
    scaling = Scaling(
        min_replicas=1, max_replicas=2, target_ongoing=4, cold_start_s=5, idle_timeout_s=10
    )
    four = [Arrival(0.0, 8, 1000) for _ in range(4)]
    found = plan([*four, Arrival(100.0, 8, 11)], scaling, 300)

    assert found.ttft.curve[-1] == pytest.approx(0.5)
    assert found.e2e.curve[-1] == pytest.approx(100.4)
    assert found.e2e.curve[0] == pytest.approx(0.4 + 0.1 + 10 * 0.1)
    assert [size for _, size in found.sizes[1:]] == [1, 2, 1]
    assert [at_s for at_s, _ in found.sizes[1:]] == pytest.approx([0, 100, 110.3])
    assert found.replica_hours == pytest.approx((300 + 10.3) / 3600)
    assert found.cost == pytest.approx(0.001 * 310.3)
