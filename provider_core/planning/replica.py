"""One simulated replica: the engine's own scheduler, and calls that take simulated time.

So who is computed when, which prompt is cut and which overtakes is as in the engine. While nothing
but decoding is to be done, its steps are all alike and pass as one event, which a new request cuts
short at the end of the step that runs then.
"""

import sys
from bisect import bisect_left
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from enum import Enum
from itertools import count

import simpy

from provider_core.engine.scheduled import Scheduled
from provider_core.engine.scheduler import Scheduler
from provider_core.engine.sequence import Sequence, make_sequence
from provider_core.engine.step_budget import StepBudget
from provider_core.planning.costs import StepCosts
from provider_core.planning.traffic import Arrival
from provider_core.types import GenerationRequest, SamplingParams

_SAME_TIME = 1e-6  # steps; so much of one is the rounding of sums of times
_TELLING_STEPS = 16  # that are alike: the budget then knows what one takes

Waiting = Generator[simpy.Event, object, None]
"""A process of the simulation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaSpec:
    """What every replica is.

    Attributes:
        costs: How long its work lasts.
        slots: Sequences at a time.
        chunk_tokens: Most prompt tokens of a step.
        target_itl_s: To which prompts are cut while others decode.
    """

    costs: StepCosts
    slots: int
    chunk_tokens: int = 512
    target_itl_s: float = 0.15


@dataclass(slots=True, eq=False)
class Served:
    """A request and what became of it; times are simulated seconds.

    Attributes:
        is_cold: It waited for a replica to start.
        done: Succeeds at the end.
    """

    arrival: Arrival
    arrived_s: float
    done: simpy.Event
    is_cold: bool = False
    first_token_s: float = 0.0
    ended_s: float = 0.0
    num_output_left: int = field(init=False)

    def __post_init__(self) -> None:
        self.num_output_left = self.arrival.output_tokens

    @property
    def ttft_s(self) -> float:
        """Time to the first token."""
        return self.first_token_s - self.arrived_s

    @property
    def total_s(self) -> float:
        """Time to the end."""
        return self.ended_s - self.arrived_s


class State(Enum):
    """Of a replica's life."""

    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"
    STOPPED = "stopped"


class Replica:
    """Serves what it is given.

    Args:
        env: The simulation.
        spec: What it is.
        on_end: Called when a request has ended.

    Attributes:
        begun_s: When it began to start, and to cost.
        stopped_s: When it ceased to.
        num_ongoing: Requests given and not ended.
        busy_s: Of its steps.
    """

    def __init__(
        self, env: simpy.Environment, spec: ReplicaSpec, on_end: Callable[["Replica"], None]
    ) -> None:
        self.state = State.STARTING
        self.begun_s = env.now
        self.stopped_s: float | None = None
        self.num_ongoing = 0
        self.busy_s = 0.0
        self._env = env
        self._spec = spec
        self._on_end = on_end
        self._budget = StepBudget(max_tokens=spec.chunk_tokens, target_itl_s=spec.target_itl_s)
        self._scheduler = Scheduler(
            max_num_seqs=spec.slots,
            vocab_size=1,  # nothing is sampled
            budget=self._budget,
            max_kv_tokens=sys.maxsize,
            mixes=spec.costs.mixes,
        )
        self._ids = count()
        self._inbox: list[Served] = []
        self._served: dict[Sequence, Served] = {}  # that the engine has
        self._woken = env.event()
        env.process(self._run())

    def serve(self, served: Served) -> None:
        """Take a request; the engine sees it once HTTP and text have had their time."""
        self.num_ongoing += 1
        on_its_way = self._env.timeout(self._spec.costs.request_s)
        on_its_way.callbacks.append(lambda _: self._enqueue(served))

    def _enqueue(self, served: Served) -> None:
        self._inbox.append(served)
        if not self._woken.triggered:
            self._woken.succeed()

    def _run(self) -> Waiting:
        scheduler = self._scheduler
        while True:
            self._woken = self._env.event()
            for served in self._inbox:  # who comes during a step is seen after it
                sequence = _sequence_of(served.arrival, str(next(self._ids)))
                self._served[sequence] = served
                scheduler.add(sequence)
            self._inbox.clear()
            has_room = scheduler.num_running < self._spec.slots
            if scheduler.prefilling or (scheduler.has_prompts and has_room):
                yield from self._step()
            elif scheduler.rows:
                yield from self._decode()
            else:
                yield self._woken

    def _step(self) -> Waiting:
        """As `EngineCore.step`."""
        scheduler = self._scheduler
        scheduler.start_step()
        while (scheduled := scheduler.schedule()) is not None:
            if scheduled.batch.phase == "prefill":
                yield from self._prefill(scheduled)
                continue
            duration_s = self._spec.costs.decode_s(len(scheduler.rows), self._num_context)
            yield from self._work(duration_s)
            self._budget.note_decode(duration_s)
            self._advance(1)

    def _prefill(self, scheduled: Scheduled) -> Waiting:
        """Compute a chunk of a prompt, maybe beside a decode."""
        scheduler, costs = self._scheduler, self._spec.costs
        (sequence,), num_tokens = scheduled.rows, scheduled.batch.token_ids.size
        decode_s = 0.0
        if scheduled.decode is None:
            duration_s = costs.prefill_s(num_tokens)
        else:
            duration_s = costs.mixed_s(len(scheduler.rows), self._num_context, num_tokens)
            decode_s = self._budget.decode_share_s(num_tokens, duration_s)
        yield from self._work(duration_s)
        self._budget.note_prefill(num_tokens, duration_s - decode_s)
        if scheduled.decode is not None:
            self._advance(1)
        scheduler.prefilled(sequence, num_tokens)
        if sequence.num_computed_tokens == sequence.num_prompt_tokens:
            self._begin_answer(sequence)
        scheduler.note_time(num_tokens, duration_s - decode_s)

    def _begin_answer(self, sequence: Sequence) -> None:
        served = self._served[sequence]
        served.first_token_s = self._env.now
        served.num_output_left -= 1
        if served.num_output_left:
            self._scheduler.close_up(sequence)
            self._scheduler.start_decoding(sequence, 0)
        else:
            self._end([sequence])

    def _decode(self) -> Waiting:
        """Decode until a row ends, or until the end of the step in which a request comes."""
        rows, costs = self._scheduler.rows, self._spec.costs
        start_s = self._env.now
        num_steps = min(self._served[row].num_output_left for row in rows)
        first_s = costs.decode_s(len(rows), self._num_context)
        growth_s = costs.context_token_s * len(rows)  # each step is so much longer than the last

        def lasts_s(num_steps: int) -> float:
            return num_steps * first_s + growth_s * num_steps * (num_steps - 1) / 2

        yield self._woken | self._env.timeout(lasts_s(num_steps))
        passed_s = self._env.now - start_s
        num_steps = bisect_left(range(num_steps), passed_s - _SAME_TIME * first_s, key=lasts_s)
        yield self._env.timeout(max(0.0, lasts_s(num_steps) - passed_s))
        self.busy_s += lasts_s(num_steps)
        for _ in range(min(num_steps, _TELLING_STEPS)):
            self._budget.note_decode(first_s + growth_s * (num_steps - 1))
        self._advance(num_steps)

    @property
    def _num_context(self) -> int:
        """Tokens that the rows hold."""
        rows = (self._served[row] for row in self._scheduler.rows)
        return sum(
            row.arrival.prompt_tokens + row.arrival.output_tokens - row.num_output_left
            for row in rows
        )

    def _work(self, duration_s: float) -> Waiting:
        self.busy_s += duration_s
        yield self._env.timeout(duration_s)

    def _advance(self, num_steps: int) -> None:
        """Give each row so many tokens, and let go of those that have all."""
        rows = self._scheduler.rows
        for row in rows:
            self._served[row].num_output_left -= num_steps
        if ended := [row for row in rows if not self._served[row].num_output_left]:
            self._end(ended)

    def _end(self, sequences: list[Sequence]) -> None:
        self._scheduler.release(sequences)
        for sequence in sequences:
            served = self._served.pop(sequence)
            served.ended_s = self._env.now
            self.num_ongoing -= 1
            served.done.succeed()
            self._on_end(self)


def _sequence_of(arrival: Arrival, request_id: str) -> Sequence:
    """What the scheduler sees of a request; all are of one key."""
    request = GenerationRequest(
        request_id=request_id,
        prompt_token_ids=(0,) * arrival.prompt_tokens,
        sampling=SamplingParams(max_tokens=arrival.output_tokens, seed=0),
    )
    return make_sequence(request, lambda _: None, max_model_len=sys.maxsize)
