"""What a runner may do wrong, and what it is called then."""

import numpy as np
import numpy.typing as npt

from provider_core.errors import BackendError, StepFailed
from provider_core.interfaces import Candidates


def check_logits(logits: npt.NDArray[np.float32], expected: tuple[int, int]) -> None:
    """Raise `StepFailed` if logits are not float32 of the expected shape."""
    if logits.shape != expected or logits.dtype != np.float32:
        raise StepFailed(
            f"the runner returned {logits.dtype} logits of shape {logits.shape},"
            f" not float32 {expected}"
        )


def check_candidates(found: Candidates, expected: tuple[int, int]) -> None:
    """Raise `StepFailed` if candidates are not of the expected shape and types."""
    forms = {
        "token_ids": (expected, np.int32),
        "logits": (expected, np.float32),
        "log_masses": (expected[:1], np.float32),
        "log_sum_exps": (expected[:1], np.float32),
    }
    for name, form in forms.items():
        values = getattr(found, name)
        if (values.shape, values.dtype) != form:
            raise StepFailed(
                f"the runner returned {name} of {values.dtype} and shape {values.shape}, not"
                f" {np.dtype(form[1])} and {form[0]}"
            )


def check_finite(logits: npt.NDArray[np.float32]) -> None:
    """Raise `StepFailed` if one position's logits hold NaN, or no finite highest value."""
    if not np.isfinite(logits.max()):
        raise StepFailed("the model's logits are not finite")


def as_backend_error(error: Exception) -> BackendError:
    """The runner's own error if it is one of ours, else one that does not show its text."""
    if isinstance(error, BackendError):
        return error
    failure = StepFailed("the model runner failed")
    failure.__cause__ = error
    return failure
