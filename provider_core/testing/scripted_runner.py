"""`ScriptedRunner`: a real `ModelRunner` without a model, for tests and for measuring the core.

Its logits are a function of the tokens that each slot really holds, as they came through
`execute_model` and `move_slot`. A wrong slot, position, move or order of rows changes the output,
as it would with a model. The history of a slot is kept as a running hash per position, so that a
step costs the same however long the text is.
"""

import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from provider_core.interfaces import Batch, RunnerInfo

_HASH_FACTOR = 0x5851F42D4C957F2D  # odd, from Knuth's MMIX generator
_HASH_START = 0x14057B7EF767814F
_MASK = 2**64 - 1
_SCRIPTED_LOGIT = 100.0  # so far above the rest that no temperature up to 2 misses it


class ScriptedRunner:
    """A deterministic stand-in for a model.

    Args:
        max_num_seqs: Slots.
        max_model_len: Positions of a slot.
        vocab_size: Width of the logits.
        scripts: For a prompt, the ids that follow it. End them with an eos id if the text should
            end.
        reply: The ids that follow every other prompt; `None` lets the hash of the text decide.
        step_time_s: How long each call lasts, beside its own work.
        prefill_token_time_s: How much longer for each token of a prefill.
        sleep: What lasts so long.
        failures: What to raise at which call of `execute_model`, counted from 0.
        on_execute: Called with each batch before anything else; may block, record or raise. The
            arrays are only valid during the call.
        corrupt: Called with each batch and its logits, which it may change or replace.
        spread: Standard deviation of the logits that no script decides.
        seed: Another seed is another model.
        num_distributions: How many different rows of logits there are.
        num_cache_blocks: Blocks that it stores.
        cache_block_size: Tokens of a block.
        mixes_phases: Take a prefill beside a decode.
    """

    def __init__(
        self,
        *,
        max_num_seqs: int = 8,
        max_model_len: int = 2048,
        vocab_size: int = 256,
        scripts: Mapping[tuple[int, ...], Sequence[int]] | None = None,
        reply: Sequence[int] | None = None,
        step_time_s: float = 0.0,
        prefill_token_time_s: float = 0.0,
        sleep: Callable[[float], None] = time.sleep,
        failures: Mapping[int, Exception] | None = None,
        on_execute: Callable[[Batch], None] | None = None,
        corrupt: Callable[[Batch, npt.NDArray[np.float32]], npt.NDArray[np.float32]] | None = None,
        spread: float = 2.0,
        seed: int = 0,
        num_distributions: int = 257,
        num_cache_blocks: int = 0,
        cache_block_size: int = 16,
        mixes_phases: bool = False,
    ) -> None:
        self.info = RunnerInfo(
            backend="scripted",
            backend_version="1",
            device="cpu",
            max_num_seqs=max_num_seqs,
            max_model_len=max_model_len,
            vocab_size=vocab_size,
            num_cache_blocks=num_cache_blocks,
            cache_block_size=cache_block_size,
            mixes_phases=mixes_phases,
        )
        self.num_calls = 0  # of execute_model and execute_mixed
        self.is_warm = False
        self.is_closed = False
        self._scripted_ids = _index_scripts(scripts or {})
        self._reply = None if reply is None else np.array(reply, dtype=np.int64)
        self._step_time_s = step_time_s
        self._prefill_token_time_s = prefill_token_time_s
        self._sleep = sleep
        self._failures = dict(failures or {})
        self._on_execute = on_execute
        self._corrupt = corrupt
        rng = np.random.default_rng(seed)
        self._table = rng.normal(0.0, spread, (num_distributions, vocab_size)).astype(np.float32)
        # hashes[slot, i] is of the slot's first i tokens.
        self._hashes = np.zeros((max_num_seqs, max_model_len + 1), dtype=np.uint64)
        self._hashes[:, 0] = _HASH_START
        # blocks[id, i] is of everything up to the block's first i tokens.
        self._blocks = np.zeros((num_cache_blocks, cache_block_size + 1), dtype=np.uint64)
        self._reply_starts = np.zeros(max_num_seqs, dtype=np.int64)  # length of each slot's prompt

    def warm_up(self) -> None:
        """Note that it was called."""
        self.is_warm = True

    def execute_model(self, batch: Batch) -> npt.NDArray[np.float32]:
        """Store the new tokens and look up the logits of the histories; see `ModelRunner`.

        Raises:
            ValueError: A chunk of a longer prompt is of one token.
        """
        self._begin_call(batch)
        return self._compute(batch)

    def execute_mixed(self, prefill: Batch, decode: Batch) -> npt.NDArray[np.float32]:
        """Do both in one call; see `MixedRunner`.

        Raises:
            ValueError: The prompt is one of those that need a call of their own.
        """
        if not self.info.mixes_phases or prefill.num_logits > 1 or prefill.token_ids.size < 2:
            raise ValueError("this prefill cannot be mixed; see `MixedRunner`")
        self._begin_call(prefill, decode)
        return np.concatenate([self._compute(prefill), self._compute(decode)])

    def _begin_call(self, *batches: Batch) -> None:
        """Check and show what is to be computed, and let time pass; raise what is to be raised."""
        call = self.num_calls
        self.num_calls += 1
        duration_s = self._step_time_s
        for batch in batches:
            if batch.phase == "prefill":
                _check_prefill(batch)
                duration_s += self._prefill_token_time_s * batch.token_ids.size
            if self._on_execute is not None:
                self._on_execute(batch)
        if duration_s > 0:
            self._sleep(duration_s)
        if call in self._failures:
            raise self._failures[call]

    def _compute(self, batch: Batch) -> npt.NDArray[np.float32]:
        hashes = self._store(batch)
        logits = self._table[(hashes >> np.uint64(33)) % np.uint64(len(self._table))]
        self._write_script(batch, hashes, logits)
        return logits if self._corrupt is None else self._corrupt(batch, logits)

    def move_slot(self, source: int, target: int, num_tokens: int) -> None:
        """Copy the first `num_tokens`; the source then holds garbage, as it may."""
        self._hashes[target, 1 : num_tokens + 1] = self._hashes[source, 1 : num_tokens + 1]
        self._reply_starts[target] = self._reply_starts[source]
        self._hashes[source, 1:] = 0

    def save_blocks(self, slot: int, first_token: int, block_ids: Sequence[int]) -> None:
        """Keep the histories at a slot's positions, with the one before each block."""
        size = self.info.cache_block_size
        for i, block_id in enumerate(block_ids):
            start = first_token + i * size
            self._blocks[block_id] = self._hashes[slot, start : start + size + 1]

    def load_blocks(self, slot: int, block_ids: Sequence[int]) -> None:
        """Take stored histories; a block that does not follow what is before it is garbage."""
        size = self.info.cache_block_size
        for i, block_id in enumerate(block_ids):
            before, *block = self._blocks[block_id]
            start = i * size
            follows = before == self._hashes[slot, start]
            self._hashes[slot, start + 1 : start + size + 1] = block if follows else 0

    def close(self) -> None:
        """Note that it was called."""
        self.is_closed = True

    def _store(self, batch: Batch) -> npt.NDArray[np.uint64]:
        """Extend the slots' histories.

        Returns:
            The hashes at the positions that need logits, `[n * num_logits]`.
        """
        slots, starts = batch.slots, batch.num_computed_tokens
        if batch.phase == "decode":
            before = self._hashes[slots, starts]
            mixed = (before ^ (before >> np.uint64(29))) + (batch.token_ids[:, 0] + 1).view(
                np.uint64
            )
            after = mixed * np.uint64(_HASH_FACTOR)
            self._hashes[slots, starts + 1] = after
            return after
        slot, start = int(slots[0]), int(starts[0])
        history = int(self._hashes[slot, start])
        histories = [history := _extend(history, i) for i in batch.token_ids[0].tolist()]
        end = start + len(histories)
        self._hashes[slot, start + 1 : end + 1] = histories
        if start == 0 or batch.num_logits <= 1:  # else it verifies a draft in the reply
            self._reply_starts[slot] = end
        return self._hashes[slot, end + 1 - batch.num_logits : end + 1]

    def _write_script(
        self, batch: Batch, hashes: npt.NDArray[np.uint64], logits: npt.NDArray[np.float32]
    ) -> None:
        if self._reply is not None:
            ends = batch.num_computed_tokens + batch.token_ids.shape[1]
            lengths = (ends[:, None] - np.arange(batch.num_logits)[::-1]).reshape(-1)
            place = lengths - np.repeat(self._reply_starts[batch.slots], batch.num_logits)
            inside = np.flatnonzero((place >= 0) & (place < len(self._reply)))
            logits[inside, self._reply[place[inside]]] = _SCRIPTED_LOGIT
        if self._scripted_ids:
            for row, history in enumerate(hashes.tolist()):
                token_id = self._scripted_ids.get(history)
                if token_id is not None:
                    logits[row, token_id] = 2 * _SCRIPTED_LOGIT


def _check_prefill(batch: Batch) -> None:
    is_whole = batch.num_logits == 1 and batch.num_computed_tokens[0] == 0
    if batch.token_ids.size == 1 and not is_whole:
        raise ValueError("a prefill chunk of one token is not a whole prompt; see `Batch`")


def _index_scripts(scripts: Mapping[tuple[int, ...], Sequence[int]]) -> dict[int, int]:
    """The next id by the hash of everything before it."""
    index = {}
    for prompt, output in scripts.items():
        history = _HASH_START
        for token_id in prompt:
            history = _extend(history, token_id)
        for token_id in output:
            index[history] = token_id
            history = _extend(history, token_id)
    return index


def _extend(history: int, token_id: int) -> int:
    return ((history ^ (history >> 29)) + token_id + 1) * _HASH_FACTOR & _MASK
