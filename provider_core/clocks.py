"""Clocks made of other clocks."""

from provider_core.interfaces import Clock


class SteadyClock:
    """Wall time that runs ahead only as fast as time passes.

    For what is forgotten when it is old: a clock that is set ahead for some seconds must not age
    everything at once. One that is set ahead for good is followed by the next start.

    Args:
        clock: What is read; right at this moment.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._began_s = clock.time() - clock.monotonic()

    def time(self) -> float:
        """Unix seconds, never more than the clock says."""
        return min(self._clock.time(), self._began_s + self._clock.monotonic())

    def monotonic(self) -> float:
        """Seconds that only grow."""
        return self._clock.monotonic()
