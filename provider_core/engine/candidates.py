"""Steps of which only candidates come from the runner, and what is drawn from them.

Ids are those that `sampler.sample` draws from whole rows, bit by bit: candidates either prove what
that would be, or the row is fetched and sampled. Rows whose logits are edited (bias, penalties,
`min_tokens`) or filtered by `top_a` are always fetched. Log probabilities are within float32's
rounding of those of whole rows.

A grammar's mask is made while the model runs. If it is ready before, the runner leaves out what it
forbids; if not, nobody waits: it is applied to the candidates, and the ids are the same.
"""

import numpy as np
import numpy.typing as npt

from provider_core.engine.bounded_drawing import (
    ListedTokens,
    draw_filtered_listed,
    draw_whole_listed,
)
from provider_core.engine.constraints import Constrained, advance_all
from provider_core.engine.faults import check_candidates, check_logits
from provider_core.engine.randomness import STREAM_STEP, stream_state, uniforms
from provider_core.engine.sampler import (
    Sampled,
    SamplingMetadata,
    is_filtered,
    make_filters,
    sample,
)
from provider_core.engine.sequence import Sequence, is_greedy
from provider_core.interfaces import Batch, CandidateRunner, Candidates, RunnerInfo
from provider_core.types import TokenLogprobs

MASS_MARGIN = 1e-4
"""By how much of itself a sum of exponentials may differ: a hundred times what float32 does to it,
because devices have exponentials of their own."""

_Floats = npt.NDArray[np.float32]
_Ints = npt.NDArray[np.int64]
_Flags = npt.NDArray[np.bool_]


class CandidateSteps:
    """Asks a runner for candidates.

    Args:
        runner: That has any.
        info: Its facts.
    """

    def __init__(self, runner: CandidateRunner, info: RunnerInfo) -> None:
        self._runner = runner
        self._max_candidates, self._vocab_size = info.max_candidates, info.vocab_size
        self._rows = _Rows([], info.vocab_size)

    def run(self, batch: Batch, sequences: list[Sequence]) -> "CandidateStep | None":
        """Run a batch; `None` without having run it if only whole logits will do.

        Raises:
            Exception: Whatever the runner raises, or `StepFailed` for what it may not return.
        """
        if batch.num_logits != 1 or (batch.phase == "prefill" and not _draws(sequences[0])):
            return None
        if sequences != self._rows.sequences:
            self._rows = _Rows(sequences, self._vocab_size)
        rows = self._rows
        is_edited = rows.find_edited()
        if is_edited.all():
            return None
        bitmasks = {
            row: bitmask
            for row, constraint in rows.constrained
            if not rows.logprobs.get(row)  # alternatives are of all ids, allowed or not
            and not is_edited[row]
            and (bitmask := constraint.ready_bitmask()) is not None
        }
        found = self._runner.execute_candidates(batch, rows.inverse_temperatures, bitmasks)
        check_candidates(found, (len(sequences), self._max_candidates))
        late = [(row, constraint) for row, constraint in rows.constrained if row not in bitmasks]
        return CandidateStep(self._runner, self._vocab_size, rows, found, is_edited, late)

    def forget(self) -> None:
        """Let go of the rows that ran last."""
        self._rows = _Rows([], self._vocab_size)


class CandidateStep:
    """A step that has run, and draws once.

    Args:
        runner: That has its logits.
        vocab_size: Width of these.
        rows: What they ask for.
        found: The candidates.
        is_edited: Rows that are drawn of edited logits, `[n]`.
        late: Rows with a grammar that the runner did not know of.
    """

    def __init__(
        self,
        runner: CandidateRunner,
        vocab_size: int,
        rows: "_Rows",
        found: Candidates,
        is_edited: _Flags,
        late: Constrained,
    ) -> None:
        self._runner, self._vocab_size = runner, vocab_size
        self._rows, self._found, self._late = rows, found, late
        self._is_certain = ~is_edited & np.isfinite(found.log_sum_exps)
        self._floor = found.logits[:, -1]
        if found.logits.shape[1] == vocab_size:
            self._floor = np.full(len(is_edited), -np.inf, dtype=np.float32)

    def sample(self) -> Sampled:
        """Choose one token for each row; those whose candidates do not tell are fetched."""
        logits = self._restrict()
        peak = logits.max(axis=1)
        is_certain, floor = self._is_certain, self._floor
        is_certain &= np.isfinite(peak) & ((peak > floor) | (floor == -np.inf))
        logits[~is_certain] = peak[~is_certain] = 0.0  # so that the arithmetic below stays finite
        is_highest = logits == peak[:, None]
        lowest = np.where(is_highest, self._found.token_ids, self._vocab_size).min(axis=1)
        token_ids: _Ints = lowest.astype(np.int64)
        if self._rows.is_random:
            self._draw(logits, peak, token_ids)
        logprobs = self._find_logprobs(token_ids)
        sure = [pair for pair in self._rows.constrained if is_certain[pair[0]]]
        complete, rejected = advance_all(sure, token_ids, peak)
        drawn = Sampled(token_ids, (), (), logprobs, complete, rejected)
        return drawn if is_certain.all() else self._fetch(drawn)

    def _restrict(self) -> _Floats:
        """The logits, minus infinity for what grammars forbid that the runner did not know of."""
        logits = self._found.logits.copy()
        for row, constraint in self._late:
            if self._is_certain[row]:
                is_allowed = constraint.find_allowed(self._found.token_ids[row])
                logits[row, ~is_allowed] = -np.inf
        return logits

    def _draw(self, logits: _Floats, peak: _Floats, token_ids: _Ints) -> None:
        """Draw for the rows that are not greedy, certain or not, into `token_ids`."""
        rows = self._rows
        draws = uniforms(rows.find_states())
        for group, filters in ((rows.whole, None), (rows.filtered, rows.filters)):
            if not len(group):
                continue
            ids = self._found.token_ids[group]
            order = ids.argsort(axis=1)
            listed = self._list(logits, peak, group, order)
            columns, is_certain = (
                draw_whole_listed(listed, draws[group], MASS_MARGIN)
                if filters is None
                else draw_filtered_listed(listed, draws[group], filters)
            )
            places = np.take_along_axis(order, columns[:, None], axis=1)
            token_ids[group] = np.take_along_axis(ids, places, axis=1)[:, 0]
            self._is_certain[group] &= is_certain & np.isfinite(listed.most_mass)

    def _list(self, logits: _Floats, peak: _Floats, group: _Ints, order: _Ints) -> ListedTokens:
        """What is known of some rows' tokens, in the order given."""
        found, factor = self._found, self._rows.inverse_temperatures[group]
        scaled = np.take_along_axis(logits[group], order, axis=1)
        scaled -= peak[group, None]
        scaled *= factor[:, None]
        allowed = np.exp(scaled).sum(axis=1, dtype=np.float64)
        # Sums of the runner's, also of what a late grammar forbids, relative to what it allows.
        with np.errstate(over="ignore", invalid="ignore"):
            distance = (found.logits[group] - peak[group, None]) * factor[:, None]
            seen = np.exp(distance, dtype=np.float64).sum(axis=1)
            whole = np.exp(found.log_masses[group] + distance[:, 0], dtype=np.float64)
            margin = MASS_MARGIN * whole
            most = allowed + np.maximum(whole - seen, 0.0) + margin
            least = np.maximum(whole, allowed) - margin
        is_late = np.isin(group, [row for row, _ in self._late])
        least[is_late] = allowed[is_late] * (1 - MASS_MARGIN)
        floor = (self._floor[group] - peak[group]) * factor
        floor[~self._is_certain[group]] = -np.inf  # finite, as all of their arithmetic
        return ListedTokens(scaled, floor, least, most)

    def _find_logprobs(self, token_ids: _Ints) -> dict[int, TokenLogprobs]:
        """Of the rows that asked for them and are certain, which one may cease to be by that.

        Alternatives come in the order of whole rows: by how far float32 has them from the highest,
        ties to the lower id.
        """
        found = self._found
        entries = {}
        for row, num_top in self._rows.logprobs.items():
            if not self._is_certain[row]:
                continue
            ids, peak = found.token_ids[row], found.logits[row, 0]
            distances = peak - found.logits[row]
            count = min(num_top, self._vocab_size)
            are_all_listed = count <= len(ids) and (
                len(ids) == self._vocab_size or distances[count - 1] < peak - self._floor[row]
            )
            if count and not are_all_listed:
                self._is_certain[row] = False
                continue
            logprobs = np.minimum((peak - found.log_sum_exps[row]) - distances, 0.0)
            token_id = int(token_ids[row])
            own = float(logprobs[ids == token_id][0])
            likeliest = np.lexsort((ids, distances))[:count]
            top = zip(ids[likeliest].tolist(), logprobs[likeliest].tolist(), strict=True)
            entries[row] = TokenLogprobs(token_id, own, tuple(top))
        return entries

    def _fetch(self, drawn: Sampled) -> Sampled:
        """Sample the rows that are not certain from their whole logits."""
        rows = (~self._is_certain).nonzero()[0].tolist()
        logits = self._runner.fetch_logits(rows)
        check_logits(logits, (len(rows), self._vocab_size))
        sequences = [self._rows.sequences[row] for row in rows]
        sampled = sample(logits, SamplingMetadata(sequences, self._vocab_size))
        drawn.token_ids[rows] = sampled.token_ids
        return Sampled(
            drawn.token_ids,
            tuple(rows[i] for i in sampled.failed_rows),
            (),
            drawn.logprobs | {rows[i]: entry for i, entry in sampled.logprobs.items()},
            drawn.complete_rows | {rows[i] for i in sampled.complete_rows},
            drawn.rejected_rows | {rows[i]: e for i, e in sampled.rejected_rows.items()},
        )


class _Rows:
    """What the rows of a batch ask for, as arrays.

    Args:
        sequences: The rows in order.
        vocab_size: Width of their logits.
    """

    def __init__(self, sequences: list[Sequence], vocab_size: int) -> None:
        self.sequences = sequences.copy()
        params = [sequence.request.sampling for sequence in sequences]
        random = [row for row, p in enumerate(params) if not is_greedy(p)]
        filtered = [row for row in random if is_filtered(params[row], vocab_size)]
        self.is_random = bool(random)
        self.filtered = np.array(filtered, dtype=np.int64)
        self.filters = make_filters([params[row] for row in filtered], vocab_size)
        self.whole = np.setdiff1d(np.array(random, dtype=np.int64), self.filtered)
        self.inverse_temperatures = np.array(
            [1.0 if is_greedy(p) else 1.0 / p.temperature for p in params], dtype=np.float32
        )
        self.constrained: Constrained = [
            (row, s.constraint) for row, s in enumerate(sequences) if s.constraint is not None
        ]
        self.logprobs = {row: p.logprobs for row, p in enumerate(params) if p.logprobs is not None}
        self._seeds = np.array([stream_state(s.seed, 0) for s in sequences], dtype=np.uint64)
        self._is_edited = np.array(
            [
                bool(p.logit_bias) or s.counts is not None or (p.top_a > 0.0 and not is_greedy(p))
                for p, s in zip(params, sequences, strict=True)
            ],
            dtype=np.bool_,
        )
        self._held_back = [
            (row, s) for row, s in enumerate(sequences) if s.stop_ids and params[row].min_tokens
        ]

    def find_edited(self) -> _Flags:
        """Rows that are now drawn of edited logits, `[n]`."""
        is_edited = self._is_edited.copy()
        for row, sequence in self._held_back:
            is_edited[row] |= sequence.num_generated_tokens < sequence.request.sampling.min_tokens
        return is_edited

    def find_states(self) -> npt.NDArray[np.uint64]:
        """States of the rows' next draws, `[n]`; read where they are not greedy."""
        num_drawn = [sequence.num_generated_tokens for sequence in self.sequences]
        return self._seeds + np.array(num_drawn, dtype=np.uint64) * STREAM_STEP


def _draws(sequence: Sequence) -> bool:
    """Whether all that is wanted of a prompt is the id that follows."""
    return sequence.max_new_tokens > 0 and sequence.request.sampling.prompt_logprobs is None
