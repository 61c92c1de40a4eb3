"""The benchmark once more, simulated: how far the costs are from what they were fitted to."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import repeat
from math import inf
from statistics import fmean, median

import simpy

from provider_core.planning.fleet import Fleet, Scaling
from provider_core.planning.forecast import run, time_between_tokens, wall_s
from provider_core.planning.rates import MeasuredRound
from provider_core.planning.replica import ReplicaSpec, Waiting
from provider_core.planning.traffic import Arrival

_BETWEEN_CLIENTS_S = 1e-4
"""Who asks first gets a step of its own: even requests of one moment come one after the other."""

_ONE_REPLICA = Scaling(min_replicas=1, max_replicas=1, target_ongoing=inf)


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """One round of a closed loop, measured and simulated; fields as of `MeasuredRound`."""

    measured: MeasuredRound
    output_tokens_per_s: float
    ttft_s: float
    ttft_p50_s: float
    itl_s: float

    @property
    def throughput_error(self) -> float:
        """Of the simulated throughput, as a part of the measured one; above 0 is too fast."""
        return self.output_tokens_per_s / self.measured.output_tokens_per_s - 1

    @property
    def ttft_error(self) -> float:
        """Of the simulated mean time to the first token; above 0 is too slow."""
        return self.ttft_s / self.measured.ttft_s - 1


def rehearse(rounds: Sequence[MeasuredRound], spec: ReplicaSpec) -> list[Rehearsal]:
    """Simulate each round of a closed loop on one replica, all requests of its mean lengths."""
    return [_rehearse(each, spec) for each in rounds if each.concurrency is not None]


def _rehearse(measured: MeasuredRound, spec: ReplicaSpec) -> Rehearsal:
    env = simpy.Environment()
    fleet = Fleet(env, spec, _ONE_REPLICA)
    num_prompt, num_output = round(measured.prompt_tokens), round(measured.output_tokens)
    requests = repeat(Arrival(0.0, max(1, num_prompt), num_output), measured.num_requests)
    clients = range(measured.concurrency or 1)
    run(env, [_ask(env, fleet, requests, _BETWEEN_CLIENTS_S * client) for client in clients])
    ttft = [each.ttft_s for each in fleet.served]
    return Rehearsal(
        measured,
        output_tokens_per_s=measured.num_requests * num_output / wall_s(fleet.served),
        ttft_s=fmean(ttft),
        ttft_p50_s=median(ttft),
        itl_s=time_between_tokens(fleet.served).mean,
    )


def _ask(
    env: simpy.Environment, fleet: Fleet, requests: Iterator[Arrival], behind_s: float
) -> Waiting:
    """One client: each request as soon as the one before has its answer, behind other clients."""
    for request in requests:
        yield env.timeout(behind_s)
        yield fleet.submit(request).done
