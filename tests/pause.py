"""A scripted model that stops where a test wants it to."""

import threading

from provider_core.interfaces import Batch


class Pause:
    """Stops a runner before one of its steps until it is told to go on; an `on_execute`.

    Attributes:
        may_go_on: Set by the test.
        is_waiting: It has come to that step.
    """

    def __init__(self, step: int) -> None:
        self._step = step
        self._num_steps = 0
        self.may_go_on = threading.Event()
        self.is_waiting = False

    def __call__(self, _: Batch) -> None:
        """Wait at that step."""
        self._num_steps += 1
        if self._num_steps == self._step:
            self.is_waiting = True
            self.may_go_on.wait()
