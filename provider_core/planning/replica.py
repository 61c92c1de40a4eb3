"""One simulated replica: slots, steps and the engine's own budget of prompt tokens.

A step is a decode of all rows and then chunks of prompts, oldest first, until the budget is spent.
While nothing but decoding is to be done, its steps are all alike and pass as one event, which a
new request cuts short at the end of the step that runs then.
"""

from collections import deque
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from enum import Enum
from math import ceil

import simpy

from provider_core.engine.scheduler import MIN_CHUNK
from provider_core.engine.step_budget import StepBudget
from provider_core.planning.costs import StepCosts
from provider_core.planning.traffic import Arrival

_SAME_TIME = 1e-6  # steps; so much of one is the rounding of sums of times

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
    num_prompt_left: int = field(init=False)
    num_output_left: int = field(init=False)

    def __post_init__(self) -> None:
        self.num_prompt_left = self.arrival.prompt_tokens
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
        self._waiting: deque[Served] = deque()
        self._prefilling: list[Served] = []
        self._rows: list[Served] = []
        self._woken = env.event()
        env.process(self._run())

    def serve(self, served: Served) -> None:
        """Take a request; the engine sees it once HTTP and text have had their time."""
        self.num_ongoing += 1
        on_its_way = self._env.timeout(self._spec.costs.request_s)
        on_its_way.callbacks.append(lambda _: self._enqueue(served))

    def _enqueue(self, served: Served) -> None:
        self._waiting.append(served)
        if not self._woken.triggered:
            self._woken.succeed()

    def _run(self) -> Waiting:
        while True:
            self._woken = self._env.event()
            self._fill_slots(len(self._waiting))
            if self._prefilling:
                yield from self._step()
            elif self._rows:
                yield from self._decode()
            else:
                yield self._woken

    def _fill_slots(self, most: int) -> None:
        """Let in as many of those that wait as there are free slots, and no more than `most`."""
        free = self._spec.slots - len(self._rows) - len(self._prefilling)
        for _ in range(min(free, most)):
            self._prefilling.append(self._waiting.popleft())

    def _step(self) -> Waiting:
        """Decode, then compute prompts; who comes meanwhile waits for the next step."""
        costs, budget = self._spec.costs, self._budget
        num_new = len(self._waiting)  # they may have the slots that this step's decode frees
        num_left = budget.num_tokens(is_decoding=bool(self._rows))
        if self._rows:
            duration_s = costs.decode_s(len(self._rows))
            yield from self._work(duration_s)
            budget.note_decode(duration_s)
            self._advance(1)
            self._fill_slots(num_new)
        while self._prefilling and num_left >= MIN_CHUNK:
            served = self._prefilling[0]
            num_tokens = min(num_left, served.num_prompt_left)
            duration_s = costs.prefill_s(num_tokens)
            yield from self._work(duration_s)
            budget.note_prefill(num_tokens, duration_s)
            num_left -= num_tokens
            served.num_prompt_left -= num_tokens
            if served.num_prompt_left == 0:
                self._begin_answer(self._prefilling.pop(0))
                if len(self._rows) == 1:
                    num_left = min(num_left, budget.num_tokens(is_decoding=True))

    def _begin_answer(self, served: Served) -> None:
        served.first_token_s = self._env.now
        served.num_output_left -= 1
        if served.num_output_left:
            self._rows.append(served)
        else:
            self._end(served)

    def _decode(self) -> Waiting:
        """Decode until a row ends, or until the end of the step in which a request comes."""
        start_s = self._env.now
        num_steps = min(row.num_output_left for row in self._rows)
        duration_s = self._spec.costs.decode_s(len(self._rows))
        yield self._woken | self._env.timeout(num_steps * duration_s)
        passed_s = self._env.now - start_s
        num_steps = min(num_steps, ceil(passed_s / duration_s - _SAME_TIME))
        yield self._env.timeout(max(0.0, num_steps * duration_s - passed_s))
        self.busy_s += num_steps * duration_s
        self._budget.note_decode(duration_s)
        self._advance(num_steps)

    def _work(self, duration_s: float) -> Waiting:
        self.busy_s += duration_s
        yield self._env.timeout(duration_s)

    def _advance(self, num_steps: int) -> None:
        """Give each row so many tokens, and let go of those that have all."""
        for row in self._rows:
            row.num_output_left -= num_steps
        for row in [row for row in self._rows if not row.num_output_left]:
            self._rows.remove(row)
            self._end(row)

    def _end(self, served: Served) -> None:
        served.ended_s = self._env.now
        self.num_ongoing -= 1
        served.done.succeed()
        self._on_end(self)
