"""What a model runner is: batches of token ids in, logits out, and what it may do besides.

`ModelRunner` is all that a backend has to be. The other protocols are offers that its `RunnerInfo`
announces: the core uses what is there, and asks no runner who it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

if TYPE_CHECKING:  # a start imports this long before it has arrays
    import numpy as np
    import numpy.typing as npt


@dataclass(frozen=True, slots=True)
class Batch:
    """One step's work for a `ModelRunner`: rectangular, one phase.

    The arrays are the scheduler's own and change after the call: copy what you keep, write nothing.

    Attributes:
        phase: `prefill` is one row of one or more tokens; `decode` is one token for each of n rows.
            A prompt is cut into chunks of any size but one: a single token is a whole prompt. So
            a runner may use other kernels for one token than for several, with other rounding,
            and where a prompt is cut still changes nothing. A row that decodes may run as a
            prefill, too: its next token and a few guessed ones, with logits for each. Guesses that
            were wrong are overwritten by the next batch.
        slots: int32 `[n]`, where each row's keys and values live. Decode rows are always the slots
            0 to n-1 in order; a prefill row is any one slot.
        token_ids: int64 `[n, s]`, the new tokens.
        num_computed_tokens: int32 `[n]`, how many tokens each slot already holds: the position of
            the row's first new token.
        num_logits: Of each row, how many of its last positions need logits: 0 (a prefill chunk
            that is not the last) up to s.
        embeddings: Of a prefill, pairs of a place in the row and float32 `[k, size]`, in order:
            vectors to read there instead of the ids' own. Only an `ImageEncoder` gets any.
    """

    phase: Literal["prefill", "decode"]
    slots: npt.NDArray[np.int32]
    token_ids: npt.NDArray[np.int64]
    num_computed_tokens: npt.NDArray[np.int32]
    num_logits: int
    embeddings: Sequence[tuple[int, npt.NDArray[np.float32]]] = ()


ROUNDING_MARGIN = 0.02
"""Natural-log units: a thousand times what the rounding of float32 changes in a logit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunnerInfo:
    """The facts a scheduler asks of a runner.

    Attributes:
        backend: Plugin name, logged and billed under.
        backend_version: Version of the runtime.
        device: Where it really runs, e.g. `cpu` or `cuda:0`.
        max_num_seqs: Slots.
        max_model_len: Positions each slot holds.
        vocab_size: Width of the logits.
        precision: Of the weights as they run, in OpenRouter's vocabulary; `None` if unknown.
        num_cache_blocks: Blocks of prompts that it can store, if it is a `BlockStore`.
        cache_block_size: Tokens of such a block.
        verify_margin: By how much the difference of two logits may change, in natural-log units,
            when a decoding row runs as a prefill (see `Batch`): greedy choices that lead by less
            are left to a decode. `None` if more than rounding differs: no drafts are tried. Above
            `ROUNDING_MARGIN` later choices may differ too, and drafts are tried only on request.
        mixes_phases: Whether it computes a piece of a prompt and a decode in one call, as a
            `MixedRunner`.
        max_candidates: Ids of each row that it brings as a `CandidateRunner`, at most
            `vocab_size`; 0 if it is none.
        unsupported_params: What an `Engine` lacks: fields of `SamplingParams`, or `grammar`. Who
            asks for them is refused by name, and no listing shows them.
    """

    backend: str
    backend_version: str
    device: str
    max_num_seqs: int
    max_model_len: int
    vocab_size: int
    precision: str | None = None
    num_cache_blocks: int = 0
    cache_block_size: int = 16
    verify_margin: float | None = ROUNDING_MARGIN
    mixes_phases: bool = False
    max_candidates: int = 0
    unsupported_params: frozenset[str] = frozenset()


@runtime_checkable
class ModelRunner(Protocol):
    """Turns batches of token ids into logits. Called from one thread only, after `warm_up`.

    Raise `errors.StepFailed` when only this batch is lost; anything else raised from a step counts
    as that, until it repeats. Raise `errors.EngineDead` when the device or the session is gone.
    """

    @property
    def info(self) -> RunnerInfo:
        """Facts that do not change while the runner lives."""
        ...

    def warm_up(self) -> None:
        """Run what the first real request must not pay for. May take seconds."""
        ...

    def execute_model(self, batch: Batch) -> npt.NDArray[np.float32]:
        """Compute one step and store the new keys and values in the rows' slots.

        Returns:
            float32 `[n * batch.num_logits, vocab_size]`, rows in order, positions of a row in
            order. Valid until the next call: the caller copies what it keeps. Until then they are
            the caller's, who may write to them (a read-only array costs it a copy at times).
        """
        ...

    def move_slot(self, source: int, target: int, num_tokens: int) -> None:
        """Make `target` hold the first `num_tokens` of `source`, whose content is then free."""
        ...

    def close(self) -> None:
        """Give the memory back. Idempotent."""
        ...


@runtime_checkable
class MixedRunner(Protocol):
    """What a `ModelRunner` can do besides: a piece of a prompt and a decode in one call.

    A call reads all weights, however little it computes: beside rows that decode, a prompt's
    tokens cost less than in a call of their own. Asked for if `info.mixes_phases`.
    """

    def execute_mixed(self, prefill: Batch, decode: Batch) -> npt.NDArray[np.float32]:
        """Do what `execute_model` does for two batches of different slots.

        Neither may depend on the other: each row has the bits that it has beside any other batch,
        and in a deterministic model those of `execute_model`.

        Args:
            prefill: Of a prompt of two tokens or more, with logits of the last one or of none.
            decode: At least one row.

        Returns:
            float32 `[prefill.num_logits + n, vocab_size]`, the prompt's first. Valid like those of
            `execute_model`.
        """
        ...


@runtime_checkable
class BlockStore(Protocol):
    """What a `ModelRunner` can do besides: keep pieces of slots, for prompts that begin alike.

    A block is `info.cache_block_size` positions of a slot, and there is room for
    `info.num_cache_blocks`. The core decides what is stored where and when; it stores only what
    prefill computed, and loads before a slot's first prefill: the bits saved, where they were.
    """

    def save_blocks(self, slot: int, first_token: int, block_ids: Sequence[int]) -> None:
        """Copy consecutive blocks of a slot, from position `first_token` on, into the store."""
        ...

    def load_blocks(self, slot: int, block_ids: Sequence[int]) -> None:
        """Copy stored blocks into a slot, one behind the other from position 0 on."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidates:
    """Of each row of logits the likeliest ids, chosen where the logits are. n rows, k ids of each.

    Attributes:
        token_ids: int32 `[n, k]`, among those that the row's bitmask allows.
        logits: float32 `[n, k]`, theirs as the model made them, highest first, equal ones in any
            order. If fewer are allowed, minus infinity and any ids fill up.
        log_masses: float32 `[n]`, the logarithm of the sum of exp((logit - highest) / temperature)
            over all ids that are allowed, where `highest` is of those.
        log_sum_exps: float32 `[n]`, that of exp(logit) over all ids, allowed or not. Not finite if
            one of the row's logits is NaN, or the highest is infinite.
    """

    token_ids: npt.NDArray[np.int32]
    logits: npt.NDArray[np.float32]
    log_masses: npt.NDArray[np.float32]
    log_sum_exps: npt.NDArray[np.float32]


@runtime_checkable
class CandidateRunner(Protocol):
    """What a `ModelRunner` can do besides: leave logits where they are, and bring candidates.

    Logits of a vocabulary of 152,000 are 0.6 MB a row, of which a draw needs a few. The core draws
    the ids that it would have drawn from whole rows, and fetches those whose candidates do not
    tell. Asked for if `info.max_candidates` is not 0.
    """

    def execute_candidates(
        self,
        batch: Batch,
        inverse_temperatures: npt.NDArray[np.float32],
        bitmasks: Mapping[int, npt.NDArray[np.int32]],
    ) -> Candidates:
        """Do what `execute_model` does, of which only candidates are brought.

        Args:
            batch: With logits of each row's last position.
            inverse_temperatures: float32 `[n]`, for `log_masses`.
            bitmasks: By row, which ids are allowed: int32 `[ceil(vocab_size / 32)]`, bit i of word
                w for the id 32 * w + i. Other rows are allowed all. Copied before it returns.

        Returns:
            Candidates of the rows in order, `info.max_candidates` of each. Valid until the next
            call.
        """
        ...

    def fetch_logits(self, rows: Sequence[int]) -> npt.NDArray[np.float32]:
        """Bring whole rows of the last `execute_candidates`, whatever bitmasks they had.

        Args:
            rows: At least one, ascending.

        Returns:
            float32 `[len(rows), vocab_size]`. Valid like those of `execute_model`.
        """
        ...
