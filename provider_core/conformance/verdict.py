"""How a check can end: it returns what it measured, or raises one of these."""

from typing import ClassVar, Literal

Status = Literal["pass", "fail", "warn", "not_applicable"]


class Verdict(Exception):
    """The end of a check that did not simply pass.

    Args:
        reason: For people; names what was sent and what came instead of what was expected.
    """

    status: ClassVar[Status]

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Failed(Verdict):
    """A client or a marketplace would be wrong about this endpoint."""

    status = "fail"


class Doubtful(Verdict):
    """It works, but a reviewer may ask about it, or the model did not show it this time."""

    status = "warn"


class NotApplicable(Verdict):
    """There is nothing to check here."""

    status = "not_applicable"


def require(holds: object, reason: str) -> None:
    """Go on if something holds.

    Raises:
        Failed: It does not.
    """
    if not holds:
        raise Failed(reason)


def prefer(holds: object, reason: str) -> None:
    """Go on if something holds that no rule demands.

    Raises:
        Doubtful: It does not.
    """
    if not holds:
        raise Doubtful(reason)
