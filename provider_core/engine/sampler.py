"""The sampler: one token id for each row of logits, all rows at once.

The order is: bias, penalties, ids that may not come before `min_tokens`, what the grammar forbids
(`constraints`), temperature, then the filters top_k, top_p, min_p, top_a (`drawing`), then the draw
(`randomness`). Logprobs are of the raw logits. A batch of greedy rows without edits is one argmax.
"""

from collections.abc import Mapping
from collections.abc import Sequence as Rows
from dataclasses import dataclass, field
from math import isnan

import numpy as np
import numpy.typing as npt

from provider_core.engine.constraints import advance_all
from provider_core.engine.drawing import Filters, draw_filtered, draw_whole, plausible_ids
from provider_core.engine.logprobs import token_logprobs
from provider_core.engine.penalties import LogitEdits
from provider_core.engine.randomness import STREAM_STEP, stream_state, uniforms
from provider_core.engine.sequence import Sequence, is_greedy
from provider_core.errors import BackendError
from provider_core.types import SamplingParams, TokenLogprobs

_LEAST_REPETITION = 1e-6  # penalties under this act like it: the quotient would overflow float32
_MAX_DRAW_SIZE = 2**20  # logits worked on at once, so that temporaries stay in cache
_LARGE_VOCAB = 2**15  # from here on filtered rows are pruned, one at a time

_Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Sampled:
    """What one step drew.

    Attributes:
        token_ids: int64 `[n]`; meaningless in failed rows.
        failed_rows: Rows whose logits hold NaN, or no finite highest value, of those that the
            request and its grammar leave; of all, if log probabilities are wanted.
        unclear_rows: Greedy rows whose best led by less than was asked. They drew nothing.
        logprobs: By row, for the rows that asked for them.
        complete_rows: Rows whose grammars let nothing but an end of text follow.
        rejected_rows: Rows whose grammars failed, with the reasons. They drew nothing.
    """

    token_ids: _Ints
    failed_rows: tuple[int, ...] = ()
    unclear_rows: tuple[int, ...] = ()
    logprobs: dict[int, TokenLogprobs] = field(default_factory=dict)
    complete_rows: frozenset[int] = frozenset()
    rejected_rows: dict[int, BackendError] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _DrawGroup:
    """Rows that are drawn together: all from the whole vocabulary, or all filtered."""

    rows: _Ints
    inverse_temperature: npt.NDArray[np.float32]  # [r, 1]
    filters: Filters | None


class SamplingMetadata:
    """The sampling parameters of a batch as arrays, built anew only when its rows change.

    Args:
        sequences: The rows in order. At each `sample` every row has drawn one more id.
        vocab_size: Width of the logits.
        min_margin: By how much, in logits, a greedy choice has to lead.
    """

    def __init__(
        self, sequences: Rows[Sequence], vocab_size: int, *, min_margin: float = 0.0
    ) -> None:
        self.vocab_size = vocab_size
        self.min_margin = min_margin
        params = [sequence.request.sampling for sequence in sequences]
        self.biased_rows = _concatenate_biases(params, vocab_size)
        self.counted = [(row, s) for row, s in enumerate(sequences) if s.counts is not None]
        self.held_back = [  # rows whose stop ids may not come yet
            (row, s)
            for row, s in enumerate(sequences)
            if s.stop_ids and s.num_generated_tokens < s.request.sampling.min_tokens
        ]
        self.constrained = [
            (row, s.constraint) for row, s in enumerate(sequences) if s.constraint is not None
        ]
        self.masked = [(row, c) for row, c in self.constrained if not is_greedy(params[row])]
        self.chosen = [(row, c) for row, c in self.constrained if is_greedy(params[row])]
        self.logprob_rows: dict[int, list[int]] = {}  # by number of alternatives
        for row, p in enumerate(params):
            if p.logprobs is not None:
                self.logprob_rows.setdefault(p.logprobs, []).append(row)
        random = [row for row, p in enumerate(params) if not is_greedy(p)]
        self.groups = _make_groups(params, random, vocab_size)
        self.states = np.array(
            [
                stream_state(s.seed, s.num_generated_tokens) if not is_greedy(p) else 0
                for s, p in zip(sequences, params, strict=True)
            ],
            dtype=np.uint64,
        )
        self.is_one_argmax = not (
            self.biased_rows or self.counted or self.held_back or self.groups or self.logprob_rows
        )

    @classmethod
    def of_positions(
        cls, sequence: Sequence, num_positions: int, vocab_size: int, *, min_margin: float
    ) -> "SamplingMetadata":
        """One row for each of the next positions of a sequence, the first being drawn next.

        Only for a sequence that `draws_independently`.
        """
        metadata = cls([sequence], vocab_size, min_margin=min_margin)
        if metadata.is_one_argmax:  # then it says nothing of single rows
            return metadata
        metadata = cls([sequence] * num_positions, vocab_size, min_margin=min_margin)
        metadata.states += np.arange(num_positions, dtype=np.uint64) * STREAM_STEP
        return metadata


def draws_independently(sequence: Sequence) -> bool:
    """Whether what a sequence drew does not change the logits of what it draws next."""
    held_back = sequence.num_generated_tokens < sequence.request.sampling.min_tokens
    return sequence.counts is None and not (held_back and sequence.stop_ids)


def sample(logits: npt.NDArray[np.float32], metadata: SamplingMetadata) -> Sampled:
    """Choose one token for each row.

    Args:
        logits: float32 `[n, vocab_size]`; failed rows are overwritten, all else is left as it
            came.
        metadata: Of the same rows.
    """
    if not (logits.flags.writeable or (metadata.is_one_argmax and not metadata.constrained)):
        logits = logits.copy()
    if metadata.is_one_argmax:
        return _choose(logits, metadata)
    edits = LogitEdits(logits)
    _edit(logits, edits, metadata)
    token_ids, peak, is_failed = _highest(logits, metadata)
    highest = peak.copy()
    unclear_rows = _unclear_rows(logits, token_ids, peak, metadata)
    has_failed = is_failed.any()
    if has_failed:
        logits[is_failed] = peak[is_failed] = 0.0  # so that the arithmetic below stays finite
    for group in metadata.groups:
        token_ids[group.rows] = _draw(logits, peak, group, metadata.states)
    metadata.states += STREAM_STEP
    edits.undo()
    if has_failed:
        logits[is_failed] = 0.0
    logprobs: dict[int, TokenLogprobs] = {}
    for num_top, rows in metadata.logprob_rows.items():
        entries = token_logprobs(logits[rows], token_ids[rows], num_top)
        logprobs.update(zip(rows, entries, strict=True))
    unrated = [row for row, entry in logprobs.items() if isnan(entry.logprob or 0.0)]
    if unrated:
        is_failed[unrated], highest[unrated] = True, np.nan
    for row, sequence in metadata.counted:
        if sequence.counts is not None and row not in unclear_rows:
            sequence.counts.add(int(token_ids[row]))
    complete_rows, rejected_rows = advance_all(metadata.constrained, token_ids, highest)
    failed_rows = _without(is_failed, rejected_rows)
    return Sampled(token_ids, failed_rows, unclear_rows, logprobs, complete_rows, rejected_rows)


def _choose(logits: npt.NDArray[np.float32], metadata: SamplingMetadata) -> Sampled:
    """`sample` for rows that are all greedy, with nothing to edit."""
    token_ids, peak, is_failed = _highest(logits, metadata)
    unclear_rows = _unclear_rows(logits, token_ids, peak, metadata)
    if not metadata.constrained:
        return Sampled(token_ids, _without(is_failed, {}), unclear_rows)
    complete_rows, rejected_rows = advance_all(metadata.constrained, token_ids, peak)
    failed_rows = _without(is_failed, rejected_rows)
    return Sampled(token_ids, failed_rows, unclear_rows, {}, complete_rows, rejected_rows)


def _without(
    is_failed: npt.NDArray[np.bool_], rejected_rows: Mapping[int, BackendError]
) -> tuple[int, ...]:
    """The failed rows but those that their grammars rejected."""
    return tuple(row for row in is_failed.nonzero()[0].tolist() if row not in rejected_rows)


def _highest(
    logits: npt.NDArray[np.float32], metadata: SamplingMetadata
) -> tuple[_Ints, npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    """Of each row the likeliest id, its logit, and whether that is NaN or infinite. All `[n]`.

    Of greedy rows with a grammar, the likeliest of the ids that it allows.
    """
    token_ids: _Ints = logits.argmax(axis=1)  # a NaN counts as the highest
    peak = logits[np.arange(len(logits)), token_ids]
    for row, constraint in metadata.chosen:
        token_ids[row], peak[row] = constraint.choose(
            logits[row], int(token_ids[row]), float(peak[row])
        )
    return token_ids, peak, ~np.isfinite(peak)


def _unclear_rows(
    logits: npt.NDArray[np.float32],
    token_ids: _Ints,
    peak: npt.NDArray[np.float32],
    metadata: SamplingMetadata,
) -> tuple[int, ...]:
    """The greedy rows where the likeliest id leads by less than the margin, NaN included."""
    if not metadata.min_margin:
        return ()
    rows = np.arange(len(logits))
    logits[rows, token_ids] = -np.inf
    is_clear = peak - logits.max(axis=1) >= metadata.min_margin
    logits[rows, token_ids] = peak
    for group in metadata.groups:
        is_clear[group.rows] = True
    return tuple((~is_clear).nonzero()[0].tolist())


def _draw(
    logits: npt.NDArray[np.float32],
    peak: npt.NDArray[np.float32],
    group: _DrawGroup,
    states: npt.NDArray[np.uint64],
) -> _Ints:
    draws = uniforms(states[group.rows])
    # By the vocabulary, not by the rows: a draw must round the same whatever runs beside it.
    if group.filters is not None and logits.shape[1] >= _LARGE_VOCAB:
        return _draw_pruned(logits[group.rows[0]], peak[group.rows[0]], group, group.filters, draws)
    scaled = logits[group.rows]
    scaled -= peak[group.rows, None]
    scaled *= group.inverse_temperature
    if group.filters is None:
        return draw_whole(scaled, draws)
    return draw_filtered(scaled, draws, group.filters)


def _draw_pruned(
    logits: npt.NDArray[np.float32],
    peak: np.float32,
    group: _DrawGroup,
    filters: Filters,
    draws: npt.NDArray[np.float64],
) -> _Ints:
    """Draw for a group of one row, `[vocab_size]`, from the few ids that may pass its filters."""
    inverse_temperature = group.inverse_temperature[0, 0]
    ids = plausible_ids(logits, float(peak), 1 / float(inverse_temperature), filters)
    scaled = logits[ids]
    scaled -= peak
    scaled *= inverse_temperature
    chosen: _Ints = ids[draw_filtered(scaled[np.newaxis], draws, filters)]
    return chosen


def _edit(logits: npt.NDArray[np.float32], edits: LogitEdits, metadata: SamplingMetadata) -> None:
    if metadata.biased_rows is not None:
        edits.add(*metadata.biased_rows)
    if metadata.counted:
        entries = [
            (row, s.counts, s.request.sampling)
            for row, s in metadata.counted
            if s.counts is not None
        ]
        lengths = [len(counts) for _, counts, _ in entries]

        def spread(values: list[float]) -> npt.NDArray[np.float32]:
            return np.repeat(np.array(values, dtype=np.float32), lengths)

        edits.penalize(
            np.repeat([row for row, _, _ in entries], lengths),
            np.concatenate([counts.token_ids for _, counts, _ in entries]),
            np.concatenate([counts.counts for _, counts, _ in entries]),
            repetition=spread(
                [max(p.repetition_penalty, _LEAST_REPETITION) for _, _, p in entries]
            ),
            frequency=spread([p.frequency_penalty for _, _, p in entries]),
            presence=spread([p.presence_penalty for _, _, p in entries]),
        )
    for row, sequence in metadata.held_back:
        if sequence.num_generated_tokens < sequence.request.sampling.min_tokens:
            columns = np.array(
                [i for i in sequence.stop_ids if 0 <= i < metadata.vocab_size], dtype=np.int64
            )
            edits.forbid(np.full(len(columns), row), columns)
    if metadata.constrained and metadata.logprob_rows:
        edits.save(np.array([row for row, _ in metadata.constrained]))
    for row, constraint in metadata.masked:
        constraint.restrict(logits[row])


def _concatenate_biases(
    params: list[SamplingParams], vocab_size: int
) -> tuple[_Ints, _Ints, npt.NDArray[np.float32]] | None:
    triples = [
        (row, token_id, value)
        for row, p in enumerate(params)
        for token_id, value in dict(p.logit_bias).items()
        if 0 <= token_id < vocab_size
    ]
    if not triples:
        return None
    rows, columns, values = zip(*triples, strict=True)
    return np.array(rows), np.array(columns), np.array(values, dtype=np.float32)


def _make_groups(
    params: list[SamplingParams], random: list[int], vocab_size: int
) -> list[_DrawGroup]:
    filtered = [row for row in random if is_filtered(params[row], vocab_size)]
    whole = [row for row in random if not is_filtered(params[row], vocab_size)]
    size = max(1, _MAX_DRAW_SIZE // vocab_size)
    groups = []
    for start in range(0, len(whole), size):
        rows = whole[start : start + size]
        groups.append(_DrawGroup(np.array(rows), _inverse_temperature(params, rows), None))
    size = size if vocab_size < _LARGE_VOCAB else 1
    for start in range(0, len(filtered), size):
        rows = filtered[start : start + size]
        filters = make_filters([params[row] for row in rows], vocab_size)
        groups.append(_DrawGroup(np.array(rows), _inverse_temperature(params, rows), filters))
    return groups


def is_filtered(params: SamplingParams, vocab_size: int) -> bool:
    """Whether a draw is from less than the whole vocabulary."""
    has_top_k = 0 < params.top_k < vocab_size
    return has_top_k or params.top_p < 1.0 or params.min_p > 0.0 or params.top_a > 0.0


def make_filters(params: list[SamplingParams], vocab_size: int) -> Filters:
    """The filters of rows, as arrays."""
    top_k = [p.top_k if 0 < p.top_k < vocab_size else 0 for p in params]
    return Filters(
        top_k=np.array(top_k, dtype=np.int64),
        top_p=np.array([p.top_p for p in params], dtype=np.float64),
        min_p=np.array([p.min_p for p in params], dtype=np.float64),
        top_a=np.array([p.top_a for p in params], dtype=np.float64),
    )


def _inverse_temperature(params: list[SamplingParams], rows: list[int]) -> npt.NDArray[np.float32]:
    return np.array([[1.0 / params[row].temperature] for row in rows], dtype=np.float32)
