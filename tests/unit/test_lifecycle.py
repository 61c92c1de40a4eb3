"""The states of a server go forward only and everybody hears of it."""

import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from provider_core.lifecycle import Lifecycle, State, process_started_s

IMPORTED_S = time.monotonic()


@dataclass
class StoppedClock:
    """Time that moves when told to."""

    now_s: float = 0.0

    def time(self) -> float:
        """Unix seconds."""
        return self.now_s

    def monotonic(self) -> float:
        """Seconds that only grow."""
        return self.now_s


def test_a_new_lifecycle_is_starting() -> None:
    """Nothing is served before somebody says so, and there is a reason to show."""
    lifecycle = Lifecycle()

    assert (lifecycle.state, lifecycle.is_ready, lifecycle.reason) == (
        State.STARTING,
        False,
        "starting",
    )


def test_observers_hear_each_change_in_order() -> None:
    """Every observer gets the new state and its reason."""
    lifecycle = Lifecycle()
    heard: list[tuple[State, str]] = []
    lifecycle.observe(lambda state, reason: heard.append((state, reason)))

    lifecycle.advance(State.STARTING, "loading model a")
    lifecycle.advance(State.READY, "ready")
    lifecycle.advance(State.DRAINING, "told to stop")
    lifecycle.advance(State.STOPPED, "stopped")

    assert heard == [
        (State.STARTING, "loading model a"),
        (State.READY, "ready"),
        (State.DRAINING, "told to stop"),
        (State.STOPPED, "stopped"),
    ]


def test_an_observer_can_leave() -> None:
    """After the returned function was called nothing more is heard."""
    lifecycle = Lifecycle()
    heard: list[State] = []
    leave = lifecycle.observe(lambda state, reason: heard.append(state))

    leave()
    lifecycle.advance(State.READY, "ready")

    assert heard == []


@pytest.mark.parametrize("state", list(State)[:-1])
def test_going_back_changes_nothing(state: State) -> None:
    """A load that ends while the server stops does not make it ready again."""
    lifecycle = Lifecycle()
    lifecycle.advance(State.STOPPED, "stopped")

    changed = lifecycle.advance(state, "late")

    assert (changed, lifecycle.state, lifecycle.reason) == (False, State.STOPPED, "stopped")


def test_saying_the_same_twice_is_heard_once() -> None:
    """Two stop signals are one change."""
    lifecycle = Lifecycle()
    heard: list[State] = []
    lifecycle.observe(lambda state, reason: heard.append(state))

    answers = [lifecycle.advance(State.DRAINING, "told to stop") for _ in range(2)]

    assert answers == [True, False]
    assert heard == [State.DRAINING]


def test_phases_are_timed_in_order() -> None:
    """Each phase of the start has its milliseconds, and the total counts from the beginning."""
    clock = StoppedClock(100.0)
    lifecycle = Lifecycle(clock=clock, started_s=99.5)
    lifecycle.add_phase("import", 0.5)
    for name, duration_s in (("load", 0.25), ("warm_up", 1.0), ("load", 0.5)):
        with lifecycle.phase(name):
            clock.now_s += duration_s

    timings = lifecycle.timings_ms()

    assert list(timings.items()) == [
        ("import_ms", 500.0),
        ("load_ms", 750.0),
        ("warm_up_ms", 1000.0),
        ("total_ms", 2250.0),
    ]


def test_the_timings_are_those_of_the_start() -> None:
    """They stand still once it is over, whatever is loaded or said later."""
    clock = StoppedClock()
    lifecycle = Lifecycle(clock=clock)
    with lifecycle.phase("load"):
        clock.now_s += 2
    lifecycle.advance(State.READY, "ready")
    for state, reason in ((State.READY, "still ready"), (State.DRAINING, "stopping")):
        with lifecycle.phase("load"), lifecycle.phase("fetch"):
            clock.now_s += 60
        lifecycle.advance(state, reason)

    assert lifecycle.timings_ms() == {"load_ms": 2000.0, "total_ms": 2000.0}
    assert lifecycle.age_s == 122.0


def test_a_phase_that_fails_is_timed_too() -> None:
    """The time a failed load took is not lost."""
    clock = StoppedClock()
    lifecycle = Lifecycle(clock=clock)

    def load() -> None:
        with lifecycle.phase("load"):
            clock.now_s += 2
            raise RuntimeError

    with pytest.raises(RuntimeError):
        load()

    assert lifecycle.timings_ms()["load_ms"] == 2000.0


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs Linux's /proc")
def test_the_process_began_before_its_first_import() -> None:
    """The time of loading Python and the first modules is counted, too."""
    assert process_started_s() < IMPORTED_S
