"""A sweep: every point, round after round, the servers taking turns.

Two servers are measured in interleaved rounds (first, second, second, first, ...), so that what
drifts on the machine meets both. Each round of a point draws other prompts, the same for both.
"""

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice, takewhile
from time import perf_counter, process_time

import numpy as np

from provider_core.errors import ConfigurationError
from provider_core.loadtest.arrivals import closed_loop, open_loop, poisson_arrivals, prepared
from provider_core.loadtest.exchange import Client
from provider_core.loadtest.machine import (
    MachineUse,
    Snapshot,
    resident_bytes,
    take_snapshot,
    use_between,
)
from provider_core.loadtest.replies import Clock, Reply
from provider_core.loadtest.report import Point, PointResult, Report, Round
from provider_core.loadtest.summary import Slo, summarise
from provider_core.loadtest.target import Target
from provider_core.loadtest.workload import Length, Workload

TIMELINE_BINS = 120
REQUESTS_PER_CLIENT = 4  # of a closed loop, unless told otherwise
MIN_REQUESTS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A point to measure, with the requests it is made of."""

    point: Point
    workload: Workload


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How a sweep goes.

    Attributes:
        rounds: Of each server at each point.
        num_requests: Of a round; `None` is four per client, what arrives in `duration_s`, or all of
            a trace.
        duration_s: In which an open loop sends.
        num_warmup: Requests to each server before the first round of a point, not measured.
        timeout_s: Longest whole answer.
    """

    steps: Sequence[Step]
    rounds: int = 1
    num_requests: int | None = None
    duration_s: float = 30.0
    num_warmup: int = 2
    timeout_s: float = 600.0
    seed: int = 0
    slo: Slo | None = None

    def size_of(self, step: Step) -> int | None:
        """Requests of one round; `None` if their times tell."""
        if step.point.concurrency is not None and self.num_requests is None:
            return max(MIN_REQUESTS, REQUESTS_PER_CLIENT * step.point.concurrency)
        return self.num_requests

    def times_of(self, step: Step, seed: Sequence[int]) -> Iterator[float]:
        """When an open loop sends, in seconds after its start."""
        if step.point.rate is None:
            return (request.at_s or 0.0 for request in step.workload.trace)
        times_s = poisson_arrivals(step.point.rate, seed)
        if self.num_requests is not None:
            return times_s
        return takewhile(lambda time_s: time_s < self.duration_s, times_s)


class Sweep:
    """Runs a plan against one server or two.

    Args:
        targets: The servers.
        plan: What to measure.
        report: Filled round by round, so that an interrupt loses only what was running.
        on_round: Called before each round with its target, point and number.
        clock: What times are read from.
        snapshot: Reads the machine's counters.
    """

    def __init__(
        self,
        targets: Sequence[Target],
        plan: Plan,
        report: Report,
        *,
        on_round: Callable[[str, Point, int], None] = lambda *_: None,
        clock: Clock = perf_counter,
        snapshot: Callable[[], Snapshot | None] = take_snapshot,
    ) -> None:
        self._targets = targets
        self._plan = plan
        self._report = report
        self._on_round = on_round
        self._clock = clock
        self._snapshot = snapshot
        self._clients = {
            target.label: Client(target, timeout_s=plan.timeout_s, clock=clock)
            for target in targets
        }

    async def run(self) -> None:
        """Measure everything.

        Raises:
            asyncio.CancelledError: Interrupted; the report holds what was measured until then.
        """
        try:
            for index, step in enumerate(self._plan.steps):
                result = PointResult(step.point)
                self._report.points.append(result)
                await self._warm_up(step, index)
                for number in range(self._plan.rounds):
                    order = self._targets if number % 2 == 0 else self._targets[::-1]
                    for target in order:
                        self._on_round(target.label, step.point, number)
                        await self._measure(target, step, (self._plan.seed, index, number), result)
        except asyncio.CancelledError:
            self._report.is_interrupted = True
            raise

    async def _warm_up(self, step: Step, index: int) -> None:
        size = self._plan.num_warmup
        if not size:
            return
        for target in self._targets:
            seed = (self._plan.seed, index, self._plan.rounds)
            messages = islice(map(target.post, step.workload.draw(seed)), size)
            client = self._clients[target.label]
            await closed_loop(client, messages, concurrency=size, replies=[])

    async def _measure(
        self, target: Target, step: Step, seed: tuple[int, int, int], result: PointResult
    ) -> None:
        """Run one round and note it, even when it is cut short."""
        replies: list[Reply] = []
        load = self._load(target, step, seed, replies)
        before, started_s, cpu_s = self._snapshot(), self._clock(), process_time()
        sending_s, is_whole = None, False
        try:
            sending_s = await load()
            is_whole = True
        finally:
            if replies or is_whole:
                cpu_s = process_time() - cpu_s
                machine = self._machine_use(target, before, self._clock() - started_s)
                sending = None if sending_s is None else (started_s, started_s + sending_s)
                result.rounds.append(
                    Round(
                        target=target.label,
                        summary=summarise(replies, self._plan.slo, sending=sending),
                        machine=machine,
                        resident_bytes=resident_bytes(target.pid) if target.pid else None,
                        generator_cpu_s=cpu_s,
                        timeline=_timeline(replies),
                        is_whole=is_whole,
                    )
                )

    def _load(
        self, target: Target, step: Step, seed: tuple[int, int, int], replies: list[Reply]
    ) -> Callable[[], Awaitable[float | None]]:
        """Prepare one round.

        Returns:
            Runs it, and returns the seconds in which it sent at a rate, `None` if told no rate.
        """
        point, plan, client = step.point, self._plan, self._clients[target.label]
        messages = islice(map(target.post, step.workload.draw(seed)), plan.size_of(step))
        if point.concurrency is not None:
            turns = prepared(messages)
            return partial(
                closed_loop, client, turns, concurrency=point.concurrency, replies=replies
            )
        schedule = prepared(zip(plan.times_of(step, (*seed, 1)), messages, strict=False))

        async def send() -> float | None:
            last_s = await open_loop(client, schedule, replies=replies, clock=self._clock)
            if point.rate is None:
                return None
            return plan.duration_s if plan.num_requests is None else last_s

        return send

    def _machine_use(
        self, target: Target, before: Snapshot | None, wall_s: float
    ) -> MachineUse | None:
        """What ran meanwhile; the server whose turn it is not counts among the others."""
        after = self._snapshot()
        if before is None or after is None or wall_s <= 0:
            return None
        return use_between(
            before,
            after,
            wall_s=wall_s,
            own_pid=os.getpid(),
            server_pids=[] if target.pid is None else [target.pid],
        )

    async def check(self) -> None:
        """Ask each server for two tokens, so that what cannot work is said at once.

        Raises:
            ConfigurationError: A server refuses, or nobody answers.
        """
        workload = self._plan.steps[0].workload
        request = next(workload.draw((self._plan.seed, 0, self._plan.rounds + 1)))
        small = replace(request, max_tokens=2)
        for client in self._clients.values():
            reply = await client.stream(client.target.post(small))
            if reply.error is not None:
                raise ConfigurationError(explain(client.target, reply))


_ADVICE = {
    "connection_refused": "start a server with: provider serve",
    "http_401": "the key is wrong or missing, give one with --key",
    "http_404": "there is no such endpoint or model",
}


def explain(target: Target, reply: Reply) -> str:
    """A failed request in one line, with what to do about it."""
    kind = str(reply.error)
    said = f" ({reply.detail})" if reply.detail else ""
    advice = f"; {_ADVICE[kind]}" if kind in _ADVICE else ""
    return f"{target.url}{target.path}: {kind.replace('_', ' ')}{said}{advice}"


async def first_model(target: Target, timeout_s: float) -> str:
    """The id of the first model a server lists.

    Raises:
        ConfigurationError: It lists none, or cannot be asked.
    """
    reply, body = await Client(target, timeout_s=timeout_s).get(target.models_path)
    if reply.error is not None:
        raise ConfigurationError(explain(target, reply))
    try:
        return str(body["data"][0]["id"])
    except (LookupError, TypeError) as error:
        raise ConfigurationError(f"{target.url} lists no model; name one with --model") from error


def _timeline(replies: Sequence[Reply]) -> tuple[float, ...]:
    """Events with output per second, over equal parts of the time from first to last."""
    times = [time for reply in replies for time in reply.arrivals_s]
    start_s = min((reply.sent_s for reply in replies), default=0.0)
    end_s = max((reply.ended_s for reply in replies), default=0.0)
    if not times or end_s <= start_s:
        return ()
    counts, _ = np.histogram(times, TIMELINE_BINS, (start_s, end_s))
    rates: list[float] = (counts * TIMELINE_BINS / (end_s - start_s)).tolist()
    return tuple(rates)


def cross(
    *,
    concurrency: Sequence[int],
    rates: Sequence[float],
    prompt_tokens: Sequence[Length],
    make_workload: Callable[[Length], Workload],
) -> list[Step]:
    """Every prompt length with every number of clients and every rate.

    Without either, the times of a trace.
    """
    steps = []
    for length in prompt_tokens:
        workload = make_workload(length)
        is_trace = bool(workload.trace)
        loads: list[tuple[int | None, float | None]] = [(c, None) for c in concurrency]
        loads += [(None, rate) for rate in rates]
        for clients, rate in loads or [(None, None)]:
            point = Point(
                concurrency=clients,
                rate=rate,
                prompt_tokens="trace" if is_trace else str(length),
                output_tokens="trace" if is_trace else str(workload.output_tokens),
            )
            steps.append(Step(point=point, workload=workload))
    return steps
