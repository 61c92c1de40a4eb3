"""How far an export has come: a bar on a terminal, a line for each tenth elsewhere."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

MILLION = 1_000_000
NUM_LINES = 10


@contextmanager
def show_progress(console: Console, total: int) -> Iterator[Callable[[int], None]]:
    """Show progress until the block ends.

    Args:
        console: Where to.
        total: Weights there are; a few more or less do no harm.

    Yields:
        What to call with a number of weights after each tensor.
    """
    if not console.is_terminal:
        yield _Lines(console, total).advance
        return
    columns = (
        TextColumn("exporting"),
        BarColumn(),
        TextColumn("{task.completed:.1f} of {task.total:.1f} million weights"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=total / MILLION)
        yield lambda num_weights: progress.advance(task, num_weights / MILLION)


class _Lines:
    """Prints a line whenever another tenth is done."""

    def __init__(self, console: Console, total: int) -> None:
        self._console = console
        self._total = max(1, total)
        self._done = 0

    def advance(self, num_weights: int) -> None:
        """Count weights."""
        tenths = self._done * NUM_LINES // self._total
        self._done += num_weights
        if self._done * NUM_LINES // self._total > tenths:
            share = min(1, self._done / self._total)
            self._console.print(f"{share:.0%} of {self._total / MILLION:.1f} million weights")
