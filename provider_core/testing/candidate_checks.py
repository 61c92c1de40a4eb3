"""That the candidates of a runner are those of its logits."""

import numpy as np
import numpy.typing as npt

from provider_core.engine.faults import check_candidates
from provider_core.errors import StepFailed
from provider_core.interfaces import Batch, CandidateRunner, Candidates, ModelRunner
from provider_core.testing.generation import ContractViolation
from provider_core.testing.logit_checks import Logits, check_close

SUM_TOLERANCE = 5e-5
"""Natural-log units: half of what the core allows for when it draws from candidates. A step of
float32 comes on top, which is larger where logits are in the thousands."""

INVERSE_TEMPERATURES = (1.0, 1.4, 0.5)
"""Of rows in turn."""


def check_candidates_of(runner: ModelRunner, batch: Batch, what: str) -> None:
    """Run a batch for its logits and again for candidates, without masks and with some.

    Args:
        runner: A `CandidateRunner`, too.
        batch: With logits of the last position of each row; it may run again.
        what: It is.

    Raises:
        ContractViolation: The candidates are others than the logits say.
    """
    if not isinstance(runner, CandidateRunner):
        raise ContractViolation("info.max_candidates is for a CandidateRunner")
    info, num_rows = runner.info, len(batch.slots)
    expected = runner.execute_model(batch).copy()
    factors = np.resize(np.array(INVERSE_TEMPERATURES, np.float32), num_rows)
    ids_of_all = np.arange(info.vocab_size)
    many, few = ids_of_all[::3], ids_of_all[[0, -1]]
    for allowed in ({}, {num_rows - 1: many}, {num_rows - 1: few}, {}):
        bitmasks = {row: _as_bitmask(ids, info.vocab_size) for row, ids in allowed.items()}
        found = runner.execute_candidates(batch, factors, bitmasks)
        try:
            check_candidates(found, (num_rows, info.max_candidates))
        except StepFailed as error:
            raise ContractViolation(f"{what}: {error.message}") from error
        for row in reversed(range(num_rows)):
            logits = runner.fetch_logits([row])
            if logits.shape != (1, info.vocab_size) or logits.dtype != np.float32:
                raise ContractViolation(
                    f"{what}: fetch_logits gave {logits.dtype} of shape {logits.shape}"
                )
            check_close(expected[row : row + 1], logits, info, f"{what}, fetched")
            ids = allowed.get(row, ids_of_all)
            _check_row(found, row, logits[0], ids, float(factors[row]), f"{what}, row {row}")
        if not np.array_equal(
            np.concatenate([runner.fetch_logits([row]).copy() for row in range(num_rows)]),
            runner.fetch_logits(range(num_rows)),
        ):
            raise ContractViolation(f"{what}: rows fetched together are not those fetched alone")


def _check_row(
    found: Candidates,
    row: int,
    logits: npt.NDArray[np.float32],
    allowed: npt.NDArray[np.int64],
    factor: float,
    what: str,
) -> None:
    """Compare one row's candidates with its logits, `[vocab_size]`."""
    count = min(found.logits.shape[1], len(allowed))
    ids, values = found.token_ids[row, :count], found.logits[row, :count]
    if len(set(ids.tolist())) < count or not np.isin(ids, allowed).all():
        raise ContractViolation(
            f"{what}: the ids {ids.tolist()} are not all allowed, or come twice"
        )
    likeliest = -np.sort(-logits[allowed])
    if not (np.array_equal(values, logits[ids]) and np.array_equal(values, likeliest[:count])):
        raise ContractViolation(f"{what}: {values.tolist()} are not the highest logits, in order")
    if (found.logits[row, count:] != -np.inf).any():
        raise ContractViolation(f"{what}: ids that are not allowed have logits")
    for name, value, wanted in (
        ("log_masses", found.log_masses, _log_sum_exp((likeliest - likeliest[0]) * factor)),
        ("log_sum_exps", found.log_sum_exps, _log_sum_exp(logits)),
    ):
        tolerance = SUM_TOLERANCE + float(np.spacing(np.float32(abs(wanted))))
        if not abs(float(value[row]) - wanted) <= tolerance:
            raise ContractViolation(
                f"{what}: {name} is {value[row]:.6f}, and should be {wanted:.6f}"
            )


def _as_bitmask(allowed: npt.NDArray[np.int64], vocab_size: int) -> npt.NDArray[np.int32]:
    bits = np.zeros(32 * -(-vocab_size // 32), np.bool_)
    bits[allowed] = True
    return np.packbits(bits, bitorder="little").view(np.int32)


def _log_sum_exp(values: Logits) -> float:
    wide = values.astype(np.float64)
    return float(np.log(np.exp(wide - wide.max()).sum()) + wide.max())
