"""What the contract of runners compares: ids exactly, logits as far as rounding goes."""

import numpy as np
import numpy.typing as npt

from provider_core.interfaces import RunnerInfo
from provider_core.testing.generation import ContractViolation

UNDECLARED_MARGIN = 0.5
"""Natural-log units, for runners that declare none: other kernels or weights change less than a
wrong position does."""

Logits = npt.NDArray[np.float32]


def check_same(expected: object, actual: object, what: str, against: str) -> None:
    """Compare two results that must be equal.

    Raises:
        ContractViolation: They differ; says `what` was expected, and what it is in `against`.
    """
    if expected != actual:
        raise ContractViolation(f"{what} is {expected}, and {against} it is {actual}")


def check_logits(logits: Logits, num_rows: int, info: RunnerInfo, where: str) -> None:
    """Look at the form of what a step returned.

    Raises:
        ContractViolation: It has another shape or type, or holds what is no number.
    """
    expected = (num_rows, info.vocab_size)
    if logits.shape != expected or logits.dtype != np.float32:
        raise ContractViolation(
            f"{where} gave {logits.dtype} logits of shape {logits.shape}, not float32 {expected}"
        )
    if not np.isfinite(logits).all():
        raise ContractViolation(f"{where} gave logits that are not finite")


def check_close(expected: Logits, actual: Logits, info: RunnerInfo, what: str) -> None:
    """Compare logits of the same positions, computed in two ways.

    Args:
        expected: float32 `[positions, vocab_size]`.
        actual: The same.
        info: Its `verify_margin` says how far the difference of two logits may change.
        what: Of which positions they are.

    Raises:
        ContractViolation: It changes by more.
    """
    margin = UNDECLARED_MARGIN if info.verify_margin is None else info.verify_margin
    changes = np.ptp(actual - expected, axis=1)
    worst = int(changes.argmax())
    if not changes[worst] <= margin:
        raise ContractViolation(
            f"{what}: at position {worst} of {len(changes)} the difference of two logits changes"
            f" by {changes[worst]:.3g}, and the margin is {margin:g}"
        )
