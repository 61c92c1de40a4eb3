"""Runners that are careless about candidates, each in its own way."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from provider_core.interfaces import Batch, Candidates, ModelRunner
from provider_core.testing import ScriptedRunner
from tests.unit.engine.candidate_runner import Bitmasks, CandidateScriptedRunner

OPTIONS: dict[str, Any] = {"max_num_seqs": 3, "max_model_len": 128}


class _OnlyClaims(ScriptedRunner):
    def __init__(self) -> None:
        super().__init__(**OPTIONS)
        self.info = replace(self.info, max_candidates=8)


class _Careless(CandidateScriptedRunner):
    """A runner that makes one mistake."""

    def __init__(self) -> None:
        super().__init__(**OPTIONS)

    def execute_candidates(
        self, batch: Batch, inverse_temperatures: npt.NDArray[np.float32], bitmasks: Bitmasks
    ) -> Candidates:
        """What it should be, spoiled."""
        found = super().execute_candidates(batch, inverse_temperatures, bitmasks)
        return self.spoil(found)

    def spoil(self, found: Candidates) -> Candidates:
        """Make the mistake."""
        return found


class _ClaimsTooMany(_Careless):
    def __init__(self) -> None:
        super().__init__()
        self.info = replace(self.info, max_candidates=1000)


class _GivesFewer(_Careless):
    def spoil(self, found: Candidates) -> Candidates:
        return replace(found, token_ids=found.token_ids[:, 1:])


class _IgnoresMasks(_Careless):
    def execute_candidates(
        self, batch: Batch, inverse_temperatures: npt.NDArray[np.float32], bitmasks: Bitmasks
    ) -> Candidates:
        return super().execute_candidates(batch, inverse_temperatures, {})


class _KeepsMasks(_Careless):
    """What a row was forbidden once it is forbidden for ever."""

    def __init__(self) -> None:
        super().__init__()
        self._bitmasks: dict[int, npt.NDArray[np.int32]] = {}

    def execute_candidates(
        self, batch: Batch, inverse_temperatures: npt.NDArray[np.float32], bitmasks: Bitmasks
    ) -> Candidates:
        self._bitmasks |= bitmasks
        return super().execute_candidates(batch, inverse_temperatures, self._bitmasks)


class _IgnoresTemperatures(_Careless):
    def execute_candidates(
        self, batch: Batch, inverse_temperatures: npt.NDArray[np.float32], bitmasks: Bitmasks
    ) -> Candidates:
        return super().execute_candidates(batch, np.ones_like(inverse_temperatures), bitmasks)


class _DoesNotSort(_Careless):
    def spoil(self, found: Candidates) -> Candidates:
        ids, logits = found.token_ids[:, ::-1], found.logits[:, ::-1]
        return replace(found, token_ids=ids.copy(), logits=logits.copy())


class _SumsWhatIsListed(_Careless):
    def spoil(self, found: Candidates) -> Candidates:
        return replace(found, log_sum_exps=np.logaddexp.reduce(found.logits, axis=1))


class _FillsUpWithTheForbidden(_Careless):
    def spoil(self, found: Candidates) -> Candidates:
        theirs = np.take_along_axis(self._logits, found.token_ids, axis=1)
        return replace(found, logits=np.where(np.isfinite(found.logits), found.logits, theirs))


class _FetchesTheFirst(_Careless):
    def fetch_logits(self, rows: Sequence[int]) -> npt.NDArray[np.float32]:
        return super().fetch_logits(range(len(rows)))


TEST = "test_candidates_are_what_the_logits_say"
CANDIDATE_MISTAKES: list[tuple[Callable[[], ModelRunner], str, str]] = [
    (_ClaimsTooMany, "test_info_is_possible", r"info\.max_candidates is 1000, of 256 ids"),
    (_OnlyClaims, TEST, r"info\.max_candidates is for a CandidateRunner"),
    (_GivesFewer, TEST, "a prompt: the runner returned token_ids of int32 and shape"),
    (_IgnoresMasks, TEST, "a prompt, row 0: the ids .* are not all allowed"),
    (_KeepsMasks, TEST, "a prompt, row 0: .* are not the highest logits"),
    (_IgnoresTemperatures, TEST, "a decode, row 1: log_masses is"),
    (_DoesNotSort, TEST, "are not the highest logits, in order"),
    (_SumsWhatIsListed, TEST, "log_sum_exps is"),
    (_FillsUpWithTheForbidden, TEST, "a prompt, row 0: ids that are not allowed have logits"),
    (_FetchesTheFirst, TEST, "a decode, fetched: at position 0 of 1 the difference"),
]
"""As those of `test_scripted_runner_contract`."""
