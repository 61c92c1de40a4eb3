"""Replicas behind a router: who gets a request, and when replicas start and stop.

A request goes to the ready replica with the fewest ongoing ones; if none has room it waits, and the
first in line goes first. As many replicas are wanted as the ongoing requests need to have no more
than a target each. What is missing starts at once, and what was not wanted for a while drains.
"""

from collections import deque
from dataclasses import dataclass
from math import ceil, inf

import simpy

from provider_core.planning.replica import Replica, ReplicaSpec, Served, State, Waiting
from provider_core.planning.traffic import Arrival

_SAME_TIME_S = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class Scaling:
    """How many replicas there are.

    Attributes:
        min_replicas: Ready from the start, and never fewer; 0 scales to zero.
        max_replicas: At least 1.
        target_ongoing: Requests for each replica that is wanted.
        max_ongoing: Requests that a replica is given at most.
        cold_start_s: From the decision to a replica that serves.
        idle_timeout_s: How long fewer replicas are wanted until the rest stops.
    """

    min_replicas: int
    max_replicas: int
    target_ongoing: float
    max_ongoing: float = inf
    cold_start_s: float = 0.0
    idle_timeout_s: float = 300.0

    def wanted(self, num_ongoing: int) -> int:
        """Replicas for so many requests."""
        needed = ceil(num_ongoing / self.target_ongoing)
        return min(max(needed, self.min_replicas), self.max_replicas)


class Fleet:
    """All replicas.

    Args:
        env: The simulation.
        spec: What each replica is.
        scaling: How many there are.

    Attributes:
        replicas: All that there ever were.
        served: All requests, in the order in which they came.
        sizes: Time and replicas that cost, at each change.
    """

    def __init__(self, env: simpy.Environment, spec: ReplicaSpec, scaling: Scaling) -> None:
        self.replicas: list[Replica] = []
        self.served: list[Served] = []
        self.sizes: list[tuple[float, int]] = []
        self._env = env
        self._spec = spec
        self._scaling = scaling
        self._active: list[Replica] = []  # starting or ready
        self._queue: deque[Served] = deque()
        self._num_ongoing = 0
        self._num_costing = 0
        self._wanted: deque[tuple[float, int]] = deque()  # and no more since when
        for _ in range(scaling.min_replicas):
            self._start().state = State.READY
        self._note_size(0)

    def submit(self, arrival: Arrival) -> Served:
        """Let a request come now."""
        served = Served(arrival, self._env.now, self._env.event())
        self.served.append(served)
        self._num_ongoing += 1
        self._queue.append(served)
        self._scale()
        self._dispatch()
        if self._queue and self._queue[-1] is served:
            served.is_cold = any(each.state is State.STARTING for each in self._active)
        return served

    def _dispatch(self) -> None:
        """Give out what waits, as far as there is room."""
        while self._queue:
            ready = [each for each in self._active if each.state is State.READY]
            least = min(ready, key=lambda each: each.num_ongoing, default=None)
            if least is None or least.num_ongoing >= self._scaling.max_ongoing:
                return
            least.serve(self._queue.popleft())

    def _on_end(self, replica: Replica) -> None:
        self._num_ongoing -= 1
        if replica.state is State.DRAINING and not replica.num_ongoing:
            self._stop(replica)
        self._scale()
        self._dispatch()

    def _scale(self) -> None:
        wanted = self._scaling.wanted(self._num_ongoing)
        for _ in range(wanted - len(self._active)):
            self._env.process(self._warm_up(self._start()))
        since_s = self._env.now
        if not self._wanted or wanted < self._wanted[-1][1]:
            self._env.process(self._shrink())
        while self._wanted and self._wanted[-1][1] <= wanted:
            since_s, _ = self._wanted.pop()
        self._wanted.append((since_s, wanted))

    def _start(self) -> Replica:
        replica = Replica(self._env, self._spec, self._on_end)
        self.replicas.append(replica)
        self._active.append(replica)
        self._note_size(1)
        return replica

    def _warm_up(self, replica: Replica) -> Waiting:
        yield self._env.timeout(self._scaling.cold_start_s)
        if replica.state is State.STARTING:
            replica.state = State.READY
            self._dispatch()

    def _shrink(self) -> Waiting:
        """Let go of what was not wanted in all of the time, the least busy first."""
        yield self._env.timeout(self._scaling.idle_timeout_s)
        start_s = self._env.now - self._scaling.idle_timeout_s + _SAME_TIME_S
        while len(self._wanted) > 1 and self._wanted[1][0] <= start_s:
            self._wanted.popleft()
        by_load = sorted(self._active, key=lambda each: each.num_ongoing)
        for replica in by_load[: max(0, len(self._active) - self._wanted[0][1])]:
            self._active.remove(replica)
            replica.state = State.DRAINING
            if not replica.num_ongoing:
                self._stop(replica)

    def _stop(self, replica: Replica) -> None:
        replica.state = State.STOPPED
        replica.stopped_s = self._env.now
        self._note_size(-1)

    def _note_size(self, change: int) -> None:
        self._num_costing += change
        self.sizes.append((self._env.now, self._num_costing))
