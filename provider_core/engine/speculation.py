"""Speculation: several ids per call at low concurrency, drafted by looking back in the text.

A row whose draft is worth trying runs as a short prefill: its last id and the draft. Each position
then draws from its own logits with its own random number, just as a decode would have, as long as
what was drawn before is what had been drafted. What was drawn last follows no draft, or differs
from it, and is a token like the others: a call makes one to `MAX_DRAFT` + 1.

A runner's kernel for several tokens may round otherwise than the one for a single token (ADR 0004).
A greedy choice that rounding could have decided is left to a decode: see
`RunnerInfo.verify_margin`.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from provider_core.engine.drafting import Draft, Drafter
from provider_core.engine.faults import check_logits
from provider_core.engine.sampler import SamplingMetadata, draws_independently, sample
from provider_core.engine.scheduler import Scheduler
from provider_core.engine.sequence import Sequence
from provider_core.errors import StepFailed
from provider_core.interfaces import Clock, ModelRunner
from provider_core.types import FinishReason, TokenLogprobs

MAX_ROWS = 2
"""With more rows, a decode shares the reading of the weights among them anyway."""

_COST_PER_TOKEN = 0.12  # of a further position, in decodes, before any was measured
_LEAST_COST, _MOST_COST = 0.01, 1.0
_MEMORY = 0.9  # weight of the past at each new duration


class Verified(NamedTuple):
    """What one sequence drew: `token_ids` may be empty, when not one choice was clear."""

    token_ids: list[int]
    logprobs: list[TokenLogprobs]
    finish_reason: FinishReason | None


class Speculator:
    """Chooses when to verify drafts instead of decoding, and does.

    Args:
        runner: Runs the drafts.
        scheduler: Knows the rows.
        clock: For what calls cost.
        margin: The runner's `verify_margin`.
    """

    def __init__(
        self, runner: ModelRunner, scheduler: Scheduler, clock: Clock, *, margin: float
    ) -> None:
        self.num_draft_tokens = 0
        self.num_accepted_tokens = 0
        self._runner = runner
        self._scheduler = scheduler
        self._clock = clock
        self._margin = margin
        self._vocab_size = runner.info.vocab_size
        self._decode_s = 0.0  # of a decode of at most `MAX_ROWS` rows
        self._cost_per_token = _COST_PER_TOKEN
        self._is_decode_owed = False  # a choice was unclear: let a decode make it
        self._has_drafters = False

    def note_decode(self, duration_s: float) -> None:
        """Take the time of a decode."""
        if len(self._scheduler.rows) <= MAX_ROWS:
            memory = _MEMORY if self._decode_s else 0.0
            self._decode_s = memory * self._decode_s + (1 - memory) * duration_s

    def drafts(self) -> list[tuple[Sequence, Draft]]:
        """One draft for each row if verifying them makes more tokens than a decode, else nothing.

        Only when nothing else wants the step: no prompt to compute, and few rows.
        """
        rows = self._scheduler.rows
        if len(rows) > MAX_ROWS or self._is_decode_owed or self._scheduler.has_prompts:
            self._is_decode_owed = False
            if len(rows) > MAX_ROWS and self._has_drafters:
                self._drop_drafters()
            return []
        drafts = []
        for sequence in rows:
            draft = self._draft(sequence)
            if draft is None:
                return []
            drafts.append((sequence, draft))
        num_expected = sum(draft.num_expected for _, draft in drafts)
        if num_expected <= len(drafts) * sum(draft.cost for _, draft in drafts):
            for sequence, draft in drafts:
                if sequence.drafter is not None:
                    sequence.drafter.relax(draft)
            return []
        return drafts

    def verify(self, sequence: Sequence, draft: Draft) -> Verified:
        """Run a row's draft and draw as many tokens as it allows, with all that ends a sequence.

        Raises:
            StepFailed: The logits have a wrong shape, or the first are not finite.
            Exception: Whatever the runner raises.
        """
        began_s = self._clock.monotonic()
        batch = self._scheduler.verification(sequence, draft.token_ids)
        logits = self._runner.execute_model(batch)
        check_logits(logits, (batch.num_logits, self._vocab_size))
        verified = _accept(logits, sequence, draft.token_ids, self._margin)
        token_ids = verified.token_ids
        if token_ids:
            self._scheduler.verified(sequence, token_ids)
        num_accepted = _num_equal(token_ids, draft.token_ids)
        if verified.finish_reason is None and len(token_ids) == num_accepted:
            self._is_decode_owed = True
        self.num_draft_tokens += len(draft.token_ids)
        self.num_accepted_tokens += num_accepted
        if sequence.drafter is not None:
            sequence.drafter.note(draft, num_accepted)
        self._note_cost(len(draft.token_ids), self._clock.monotonic() - began_s)
        return verified

    def _draft(self, sequence: Sequence) -> Draft | None:
        most = sequence.max_new_tokens - sequence.num_generated_tokens - 1
        if most < 1 or sequence.constraint is not None:
            return None
        if sequence.drafter is None:
            sequence.drafter = Drafter(sequence.request.prompt_token_ids)
            self._has_drafters = True
        return sequence.drafter.draft(
            sequence.generated_ids, cost_per_token=self._cost_per_token, most=most
        )

    def _drop_drafters(self) -> None:
        """Give the memory of every index back; it takes more than the text, and may never be used.

        Who is alone again indexes its text anew.
        """
        for sequence in self._scheduler.rows:
            sequence.drafter = None
        self._has_drafters = False

    def _note_cost(self, num_drafted: int, duration_s: float) -> None:
        if self._decode_s:
            cost = (duration_s / self._decode_s - 1) / num_drafted
            cost = min(max(cost, _LEAST_COST), _MOST_COST)
            self._cost_per_token += (1 - _MEMORY) * (cost - self._cost_per_token)


def make_speculator(runner: ModelRunner, scheduler: Scheduler, clock: Clock) -> Speculator | None:
    """A speculator, if the runner's prefill says what its decode says."""
    margin = runner.info.verify_margin
    return None if margin is None else Speculator(runner, scheduler, clock, margin=margin)


def _accept(
    logits: npt.NDArray[np.float32], sequence: Sequence, draft: list[int], margin: float
) -> Verified:
    """Draw from position after position, `[1 + len(draft), vocab_size]`, while the draft holds.

    Counts the tokens as generated.
    """
    token_ids: list[int] = []
    logprobs: list[TokenLogprobs] = []
    for expected, drawn in zip([*draft, None], _draws(logits, sequence, margin), strict=False):
        token_id, entry = drawn
        token_ids.append(token_id)
        if entry is not None:
            logprobs.append(entry)
        sequence.num_generated_tokens += 1
        if token_id in sequence.stop_ids:
            return Verified(token_ids, logprobs, "stop")
        if sequence.num_generated_tokens >= sequence.max_new_tokens:
            return Verified(token_ids, logprobs, "length")
        if token_id != expected:
            break
    return Verified(token_ids, logprobs, None)


def _draws(
    logits: npt.NDArray[np.float32], sequence: Sequence, margin: float
) -> Iterator[tuple[int, TokenLogprobs | None]]:
    """What each position draws if those before it were accepted; ends before an unclear one.

    Raises:
        StepFailed: The first position's logits are not finite.
    """
    num_positions, vocab_size = logits.shape
    if not logits.flags.writeable:
        logits = logits.copy()
    if draws_independently(sequence):
        metadata = SamplingMetadata.of_positions(
            sequence, num_positions, vocab_size, min_margin=margin
        )
        sampled = sample(logits, metadata)
        if 0 in sampled.failed_rows:
            raise StepFailed("the model's logits are not finite")
        num_sound = min(sampled.failed_rows + sampled.unclear_rows, default=num_positions)
        for position, token_id in enumerate(sampled.token_ids[:num_sound].tolist()):
            yield token_id, sampled.logprobs.get(position)
        return
    metadata = SamplingMetadata([sequence], vocab_size, min_margin=margin)
    for position in range(num_positions):
        sampled = sample(logits[position : position + 1], metadata)
        if sampled.failed_rows and position == 0:
            raise StepFailed("the model's logits are not finite")
        if sampled.failed_rows or sampled.unclear_rows:
            return
        yield int(sampled.token_ids[0]), sampled.logprobs.get(0)


def _num_equal(token_ids: list[int], draft: list[int]) -> int:
    """How many of the first ids agree."""
    pairs = enumerate(zip(token_ids, draft, strict=False))
    return next((i for i, (a, b) in pairs if a != b), min(len(token_ids), len(draft)))
