"""Simulated replicas against arithmetic, queueing theory and what must always hold."""

import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import simpy
from hypothesis import given, settings
from hypothesis import strategies as st

from provider_core.loadtest.workload import Length
from provider_core.planning.costs import StepCosts
from provider_core.planning.fleet import Fleet, Scaling
from provider_core.planning.forecast import Forecast, Terms, forecast
from provider_core.planning.replica import ReplicaSpec, Served
from provider_core.planning.traffic import Arrival, poisson_traffic

COSTS = StepCosts(call_s=0.02, row_s=0.002, prompt_token_s=0.001, request_s=0.005)
SPEC = ReplicaSpec(costs=COSTS, slots=4, chunk_tokens=64)
FIXED = Scaling(min_replicas=1, max_replicas=1, target_ongoing=4)
ELASTIC = Scaling(
    min_replicas=0,
    max_replicas=3,
    target_ongoing=4,
    max_ongoing=8,
    cold_start_s=10,
    idle_timeout_s=60,
)
TERMS = Terms(price_per_hour=3.6)


def serve(
    arrivals: list[Arrival], spec: ReplicaSpec = SPEC, scaling: Scaling = FIXED
) -> list[Served]:
    """Every request with its times."""
    env = simpy.Environment()
    fleet = Fleet(env, spec, scaling)

    def arrive() -> simpy.events.ProcessGenerator:
        for arrival in arrivals:
            yield env.timeout(max(0.0, arrival.at_s - env.now))
            fleet.submit(arrival)
        yield env.all_of([each.done for each in fleet.served])

    env.run(until=env.process(arrive()))
    return fleet.served


def foresee(arrivals: list[Arrival], scaling: Scaling, duration_s: float = 0.0) -> Forecast:
    """What it comes to."""
    return forecast(arrivals, SPEC, scaling, TERMS, duration_s=duration_s)


def steady(seed: int, rate: float = 3.0, duration_s: float = 200.0) -> list[Arrival]:
    """Requests of many lengths."""
    return poisson_traffic(
        rate=rate,
        duration_s=duration_s,
        prompt_tokens=Length(80, 70),
        output_tokens=Length(30, 29),
        seed=seed,
    )


def test_one_request_takes_what_its_calls_take() -> None:
    """HTTP, a prefill, and a decode of one row for each further token."""
    (served,) = serve([Arrival(1.0, 50, 11)])

    assert served.first_token_s == pytest.approx(1.005 + 0.02 + 50 * 0.001)
    assert served.ended_s == pytest.approx(served.first_token_s + 10 * 0.022)


def test_a_long_prompt_takes_a_call_for_each_chunk() -> None:
    """Of at most the chunk's size."""
    (served,) = serve([Arrival(0.0, 150, 1)])

    assert served.ttft_s == pytest.approx(0.005 + 3 * 0.02 + 150 * 0.001)
    assert served.ended_s == served.first_token_s


def test_who_comes_while_others_decode_waits_for_the_end_of_the_step() -> None:
    """The step that runs, then a decode, then the prompt; and both decode from then on."""
    first, second = serve([Arrival(0.0, 50, 100), Arrival(0.5, 30, 2)])

    steps = math.ceil((0.505 - first.first_token_s) / 0.022)
    begun_s = first.first_token_s + (steps + 1) * 0.022
    assert second.first_token_s == pytest.approx(begun_s + 0.02 + 30 * 0.001)
    assert second.ended_s == pytest.approx(second.first_token_s + 0.024)
    rest_s = (99 - steps - 2) * 0.022
    assert first.ended_s == pytest.approx(second.ended_s + rest_s)


def test_who_finds_no_slot_waits_for_one() -> None:
    """And those of one replica never decode more than it has slots."""
    served = serve([Arrival(0.0, 10, 50) for _ in range(9)])

    begins = sorted(each.first_token_s for each in served)
    ends = sorted(each.ended_s for each in served)
    assert all(begin >= end for begin, end in zip(begins[4:], ends, strict=False))


def test_prompts_beside_a_decode_are_cut_to_the_budget() -> None:
    """A long prompt takes more calls where others keep an inter-token latency."""
    spec = replace(SPEC, chunk_tokens=512, target_itl_s=0.1)
    (alone,) = serve([Arrival(0.0, 400, 2)], spec)
    _, _, beside = serve(
        [Arrival(0.0, 100, 200), Arrival(0.5, 100, 200), Arrival(1.0, 400, 2)], spec
    )

    assert beside.ttft_s > alone.ttft_s + 4 * 0.02


def test_a_short_prompt_overtakes_a_long_one() -> None:
    """For half of a step's budget, as in the engine; the long one goes on in the other half."""
    long, short = serve([Arrival(0.0, 400, 2), Arrival(0.001, 20, 2)])
    (alone,) = serve([Arrival(0.0, 400, 2)])

    assert short.first_token_s < long.first_token_s
    assert long.first_token_s < alone.first_token_s + 0.02 + 20 * 0.001 + 0.022 + 1e-9


def test_a_decode_lasts_longer_the_more_its_rows_hold() -> None:
    """By each token of prompts and answers, whether steps pass one by one or together."""
    spec = replace(SPEC, costs=replace(COSTS, context_token_s=0.0001))
    (alone,) = serve([Arrival(0.0, 50, 101)], spec)
    first, second = serve([Arrival(0.0, 50, 101), Arrival(0.5, 1, 1)], spec)

    decodes_s = sum(0.022 + 0.0001 * (50 + made) for made in range(1, 101))
    assert alone.ended_s == pytest.approx(alone.first_token_s + decodes_s)
    prompt_s = 0.02 + 0.001
    assert first.ended_s == pytest.approx(alone.ended_s + prompt_s)
    assert second.ended_s > 0.505 + prompt_s


def test_an_engine_that_mixes_spares_a_call() -> None:
    """A prompt that comes beside a decode costs its tokens only."""
    mixing = replace(SPEC, costs=replace(COSTS, mixes=True))
    first, second = serve([Arrival(0.0, 50, 100), Arrival(0.5, 30, 2)], mixing)

    steps = math.ceil((0.505 - first.first_token_s) / 0.022)
    mixed_s = 0.022 + 30 * 0.001
    assert second.first_token_s == pytest.approx(first.first_token_s + steps * 0.022 + mixed_s)
    assert second.ended_s == pytest.approx(second.first_token_s + 0.024)
    rest_s = (99 - steps - 2) * 0.022
    assert first.ended_s == pytest.approx(second.ended_s + rest_s)


LOADS = st.lists(
    st.tuples(st.floats(0, 30), st.integers(1, 300), st.integers(1, 60)), min_size=1, max_size=40
)


@settings(max_examples=60, deadline=None)
@given(LOADS, st.sampled_from([FIXED, ELASTIC, replace(ELASTIC, max_ongoing=1)]))
def test_every_request_ends_once(load: list[tuple[float, int, int]], scaling: Scaling) -> None:
    """With all of its tokens, in order of time, and no replica is left with any."""
    served = serve([Arrival(*each) for each in sorted(load)], scaling=scaling)

    assert [each.num_output_left for each in served] == [0] * len(load)
    assert all(each.done.processed for each in served)
    least_s = COSTS.request_s + COSTS.call_s
    assert all(each.ttft_s >= least_s - 1e-9 for each in served)
    shortest = [(each.arrival.output_tokens - 1) * COSTS.decode_s(1) for each in served]
    written = [each.ended_s - each.first_token_s for each in served]
    assert all(took > least - 1e-6 for took, least in zip(written, shortest, strict=True))


@pytest.mark.parametrize("seed", range(6))
def test_more_replicas_never_make_the_first_token_later(seed: int) -> None:
    """At the 95th percentile; but for where in a step a request comes, which is up to chance."""
    p95 = [
        foresee(steady(seed), replace(FIXED, min_replicas=n, max_replicas=n)).ttft.p95
        for n in range(1, 6)
    ]

    step_s = COSTS.decode_s(SPEC.slots) + COSTS.prefill_s(SPEC.chunk_tokens)
    assert all(more <= fewer + step_s for fewer, more in pairwise(p95))
    assert p95[-1] < p95[0] / 2


@pytest.mark.parametrize("least", [0, 2])
def test_no_traffic_costs_what_is_always_ready(least: int) -> None:
    """And nothing where that is nothing."""
    found = foresee([], replace(ELASTIC, min_replicas=least), duration_s=7200)

    assert (found.peak_replicas, found.mean_replicas) == (least, least)
    assert found.cost == pytest.approx(least * 2 * 3.6)
    assert found.cost_per_million_output_tokens is None
    assert (found.cold_share, found.utilisation) == (0, 0)


def test_from_zero_the_first_request_waits_for_a_start_and_pays_for_the_idle_time() -> None:
    """A start, the answer, the idle time-out; then there is nothing again."""
    found = foresee([Arrival(0.0, 50, 11), Arrival(11.0, 50, 11)], ELASTIC, duration_s=3600)

    answer_s = 0.005 + 0.02 + 50 * 0.001
    assert found.ttft.curve[-1] == pytest.approx(10 + answer_s)
    assert found.ttft.curve[0] == pytest.approx(answer_s)
    assert found.cold_share == 0.5
    assert found.peak_replicas == 1
    paid_s = 11 + answer_s + 10 * 0.022 + 60
    assert found.replica_hours == pytest.approx(paid_s / 3600)
    assert found.cost == pytest.approx(paid_s / 1000)
    assert found.sizes == ((0.0, 0), (0.0, 1), (pytest.approx(paid_s), 0))


def test_replicas_come_and_go_with_the_load() -> None:
    """As many as the ongoing requests need, never more than the most, and down to none."""
    burst = [Arrival(0.0, 10, 2000) for _ in range(9)]
    found = foresee(burst, ELASTIC, duration_s=600)
    more = foresee(burst * 4, ELASTIC, duration_s=600)

    assert (found.peak_replicas, more.peak_replicas) == (3, 3)
    assert found.sizes[-1][1] == 0
    assert found.cold_share == 1


def test_a_short_lull_stops_nobody() -> None:
    """Only what was not wanted in all of the idle time-out goes."""
    waves = [Arrival(50.0 * wave, 10, 20) for wave in range(10) for _ in range(8)]
    found = foresee(waves, ELASTIC)

    assert found.peak_replicas == 2
    assert max(at_s for at_s, _ in found.sizes) == 0


def test_the_same_seed_gives_the_same_forecast() -> None:
    """And another one another."""
    assert foresee(steady(1), ELASTIC) == foresee(steady(1), ELASTIC)
    assert foresee(steady(1), ELASTIC) != foresee(steady(2), ELASTIC)


def mean_wait_s(num_replicas: int, rate: float, output_tokens: list[int]) -> float:
    """In one line before replicas that serve one request at a time, a millisecond a token."""
    spec = ReplicaSpec(costs=StepCosts(call_s=0.001), slots=1)
    scaling = Scaling(
        min_replicas=num_replicas, max_replicas=num_replicas, target_ongoing=1, max_ongoing=1
    )
    random = np.random.default_rng(0)
    times = np.cumsum(random.exponential(1 / rate, len(output_tokens)))
    arrivals = [Arrival(*each) for each in zip(times, [1] * len(times), output_tokens, strict=True)]
    found = forecast(arrivals, spec, scaling, TERMS)
    assert found.utilisation == pytest.approx(
        rate * np.mean(output_tokens) / 1000 / num_replicas, rel=0.03
    )
    return found.ttft.mean - 0.001


def test_waiting_before_one_replica_is_that_of_a_queue_with_fixed_service() -> None:
    """M/D/1, by Pollaczek and Khinchine: rho / (2 (1 - rho)) services."""
    rate, service_s = 7.0, 0.1
    load = rate * service_s

    wait_s = mean_wait_s(1, rate, [100] * 20_000)

    assert wait_s == pytest.approx(service_s * load / (2 * (1 - load)), rel=0.05)


def test_waiting_before_three_replicas_is_that_of_a_queue_with_three_servers() -> None:
    """M/M/c, by Erlang's formula."""
    servers, rate, service_s = 3, 21.0, 0.1
    load = rate * service_s
    random = np.random.default_rng(1)

    wait_s = mean_wait_s(servers, rate, random.geometric(1 / 100, 30_000).tolist())

    waits = load**servers / math.factorial(servers) * servers / (servers - load)
    all_busy = waits / (sum(load**k / math.factorial(k) for k in range(servers)) + waits)
    assert wait_s == pytest.approx(all_busy * service_s / (servers - load), rel=0.06)
