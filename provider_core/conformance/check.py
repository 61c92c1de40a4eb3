"""A check: what it is called, what it belongs to, and the function that makes it."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from provider_core.conformance.probe import Probe

Run = Callable[[Probe], Awaitable[str]]
"""Returns what was measured, in a few words, or raises a `Verdict`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One thing that must hold.

    Attributes:
        id: `group.name`, by which checklists refer to it.
        title: For people.
        is_slow: Left out by `--quick`.
    """

    id: str
    group: str
    title: str
    run: Run
    is_slow: bool = False


@dataclass(frozen=True, slots=True)
class Group:
    """Checks of one subject, in the order in which they run."""

    name: str
    checks: list[Check] = field(default_factory=list)

    def check(self, name: str, title: str, *, slow: bool = False) -> Callable[[Run], Run]:
        """Register a function as a check of this group."""

        def register(run: Run) -> Run:
            self.checks.append(
                Check(id=f"{self.name}.{name}", group=self.name, title=title, run=run, is_slow=slow)
            )
            return run

        return register
