"""A clock for tests."""


class ManualClock:
    """Time that stands until a test moves it."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def time(self) -> float:
        """Unused by the engine."""
        return self.now_s

    def monotonic(self) -> float:
        """The time as set."""
        return self.now_s
