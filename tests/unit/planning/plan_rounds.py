"""A benchmark of a simulated replica: rounds whose true costs are known."""

from itertools import repeat
from statistics import fmean, median

import simpy

from provider_core.planning.fleet import Fleet, Scaling
from provider_core.planning.forecast import run, time_between_tokens, wall_s
from provider_core.planning.rates import MeasuredRound
from provider_core.planning.replica import ReplicaSpec
from provider_core.planning.traffic import Arrival

ONE = Scaling(min_replicas=1, max_replicas=1, target_ongoing=1)


def simulated_round(
    spec: ReplicaSpec, *, concurrency: int, prompt_tokens: int, output_tokens: int
) -> MeasuredRound:
    """Eight requests of each client of a closed loop."""
    env = simpy.Environment()
    fleet = Fleet(env, spec, ONE)
    requests = repeat(Arrival(0.0, prompt_tokens, output_tokens), 8 * concurrency)

    def ask(client: int) -> simpy.events.ProcessGenerator:
        yield env.timeout(0.01 * client)  # clients are never quite in step
        for request in requests:
            yield fleet.submit(request).done

    run(env, [ask(client) for client in range(concurrency)])
    ttft = [each.ttft_s for each in fleet.served]
    return MeasuredRound(
        load=f"c={concurrency}",
        concurrency=concurrency,
        rate=None,
        num_requests=len(fleet.served),
        wall_s=wall_s(fleet.served),
        prompt_tokens=prompt_tokens,
        output_tokens=output_tokens,
        ttft_s=fmean(ttft),
        ttft_p50_s=median(ttft),
        itl_s=time_between_tokens(fleet.served).mean,
    )


def simulated_bench(spec: ReplicaSpec) -> list[MeasuredRound]:
    """Two lengths of prompts by three numbers of clients."""
    return [
        simulated_round(spec, concurrency=clients, prompt_tokens=length, output_tokens=64)
        for length in (64, 512)
        for clients in (1, 4, 16)
    ]
