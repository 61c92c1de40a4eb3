"""What a simulated fleet comes to: replicas, latencies, and what a token costs.

These are estimates in floating point, not bills: nobody is charged by them.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import simpy

from provider_core.loadtest.summary import Distribution
from provider_core.planning.fleet import Fleet, Scaling
from provider_core.planning.replica import ReplicaSpec, Served, Waiting
from provider_core.planning.traffic import Arrival

_MILLION = 1e6
_HOUR_S = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What is paid and what is asked for.

    Attributes:
        price_per_hour: USD of one replica, from the begin of its start to its end.
        prompt_price_ratio: What a prompt token is sold for, as a part of what an output token is.
        request_timeout_s: After which the platform cuts a request; `None` if it does not.
    """

    price_per_hour: float
    prompt_price_ratio: float = 0.25
    request_timeout_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """What one simulation found.

    Attributes:
        scaling: Of the fleet.
        num_requests: Served; every request is.
        duration_s: From the start to the end of the traffic, or of the last answer.
        wall_s: From the first request to the end of the last answer.
        peak_replicas: Most that cost at a time.
        mean_replicas: Over the duration.
        utilisation: Share of the replicas' time in which a step ran.
        slot_utilisation: Share of the slots' time in which an answer was written.
        cold_share: Share of the requests that waited for a replica to start.
        timeout_share: Share of the requests that the platform would have cut.
        ttft: Times to the first token.
        tpot: Mean times of each answer between its tokens.
        e2e: Times to the end.
        replica_hours: Paid.
        cost: USD.
        sizes: Time and replicas, at each change.
    """

    scaling: Scaling
    num_requests: int
    prompt_tokens: int
    output_tokens: int
    duration_s: float
    wall_s: float
    peak_replicas: int
    mean_replicas: float
    utilisation: float
    slot_utilisation: float
    cold_share: float
    timeout_share: float
    ttft: Distribution
    tpot: Distribution
    e2e: Distribution
    replica_hours: float
    cost: float
    prompt_price_ratio: float
    sizes: Sequence[tuple[float, int]]

    @property
    def requests_per_s(self) -> float:
        """Answers per second."""
        return self.num_requests / self.wall_s if self.wall_s else 0.0

    @property
    def output_tokens_per_s(self) -> float:
        """Output tokens per second, of all replicas together."""
        return self.output_tokens / self.wall_s if self.wall_s else 0.0

    @property
    def cost_per_million_output_tokens(self) -> float | None:
        """USD, as if prompts were free; `None` without tokens."""
        return _per_million(self.cost, self.output_tokens)

    @property
    def cost_per_million_tokens(self) -> float | None:
        """USD, prompt and output tokens alike: the one price for both that pays for it all."""
        return _per_million(self.cost, self.prompt_tokens + self.output_tokens)

    @property
    def break_even_output_price(self) -> float | None:
        """USD per million output tokens at which the fleet pays for itself.

        A prompt token is sold for `prompt_price_ratio` of it.
        """
        sold = self.output_tokens + self.prompt_price_ratio * self.prompt_tokens
        return _per_million(self.cost, sold)

    @property
    def break_even_prompt_price(self) -> float | None:
        """USD per million prompt tokens that belong to it."""
        output_price = self.break_even_output_price
        return None if output_price is None else self.prompt_price_ratio * output_price


def _per_million(cost: float, num_tokens: float) -> float | None:
    return _MILLION * cost / num_tokens if num_tokens else None


def forecast(
    arrivals: Sequence[Arrival],
    spec: ReplicaSpec,
    scaling: Scaling,
    terms: Terms,
    *,
    duration_s: float = 0.0,
) -> Forecast:
    """Simulate a traffic.

    Args:
        arrivals: In the order of their times.
        spec: What each replica is.
        scaling: How many there are.
        terms: What is paid.
        duration_s: For which replicas are paid at least, though nobody asks any more.
    """
    env = simpy.Environment()
    fleet = Fleet(env, spec, scaling)
    run(env, [_arrive(env, fleet, arrivals), _pass(env, duration_s)])
    served = fleet.served
    end_s = max([duration_s, *(each.ended_s for each in served)])
    paid_s = sum(
        (end_s if each.stopped_s is None else each.stopped_s) - each.begun_s
        for each in fleet.replicas
    )
    busy_s = sum(each.busy_s for each in fleet.replicas)
    writing_s = sum(each.ended_s - each.first_token_s for each in served)
    hours = paid_s / _HOUR_S
    limit_s = terms.request_timeout_s
    return Forecast(
        scaling=scaling,
        num_requests=len(served),
        prompt_tokens=sum(each.prompt_tokens for each in arrivals),
        output_tokens=sum(each.output_tokens for each in arrivals),
        duration_s=end_s,
        wall_s=wall_s(served),
        peak_replicas=max(size for _, size in fleet.sizes),
        mean_replicas=paid_s / end_s if end_s else float(scaling.min_replicas),
        utilisation=busy_s / paid_s if paid_s else 0.0,
        slot_utilisation=writing_s / (paid_s * spec.slots) if paid_s else 0.0,
        cold_share=_share(served, lambda each: each.is_cold),
        timeout_share=_share(served, lambda each: limit_s is not None and each.total_s > limit_s),
        ttft=Distribution.of([each.ttft_s for each in served]),
        tpot=time_between_tokens(served),
        e2e=Distribution.of([each.total_s for each in served]),
        replica_hours=hours,
        cost=hours * terms.price_per_hour,
        prompt_price_ratio=terms.prompt_price_ratio,
        sizes=tuple(fleet.sizes),
    )


def run(env: simpy.Environment, processes: Iterable[Waiting]) -> None:
    """Simulate until each of some processes has ended."""
    env.run(until=env.all_of([env.process(each) for each in processes]))


def wall_s(served: Sequence[Served]) -> float:
    """From the first request to the end of the last answer."""
    if not served:
        return 0.0
    return max(each.ended_s for each in served) - served[0].arrived_s


def time_between_tokens(served: Sequence[Served]) -> Distribution:
    """Mean seconds between tokens, one sample for each answer of several."""
    return Distribution.of(
        [
            (each.ended_s - each.first_token_s) / (each.arrival.output_tokens - 1)
            for each in served
            if each.arrival.output_tokens > 1
        ]
    )


def _arrive(env: simpy.Environment, fleet: Fleet, arrivals: Sequence[Arrival]) -> Waiting:
    for arrival in arrivals:
        yield env.timeout(max(0.0, arrival.at_s - env.now))
        fleet.submit(arrival)
    for served in fleet.served:
        if not served.done.processed:
            yield served.done


def _pass(env: simpy.Environment, duration_s: float) -> Waiting:
    yield env.timeout(duration_s)


def _share(served: Sequence[Served], holds: Callable[[Served], bool]) -> float:
    return sum(map(holds, served)) / len(served) if served else 0.0
