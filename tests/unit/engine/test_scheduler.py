"""Which sequences run, and where."""

import numpy as np
import pytest

from provider_core.engine.scheduler import Scheduler, WaitingQueue
from provider_core.engine.sequence import Sequence, make_sequence
from provider_core.interfaces import Batch
from provider_core.types import EngineOutput, GenerationRequest, SamplingParams


def _ignore(output: EngineOutput) -> None:
    del output


def _sequence(
    name: str,
    *,
    length: int = 3,
    max_tokens: int = 10,
    key: str = "",
    prompt_logprobs: int | None = None,
) -> Sequence:
    request = GenerationRequest(
        request_id=name,
        prompt_token_ids=tuple(range(length)),
        sampling=SamplingParams(max_tokens=max_tokens, prompt_logprobs=prompt_logprobs),
        fairness_key=key,
    )
    return make_sequence(request, _ignore, max_model_len=1000)


def _scheduler(
    *, max_num_seqs: int = 4, chunk: int = 8, max_kv_tokens: int = 10_000, vocab_size: int = 50
) -> Scheduler:
    return Scheduler(
        max_num_seqs=max_num_seqs,
        vocab_size=vocab_size,
        prefill_chunk_tokens=chunk,
        max_kv_tokens=max_kv_tokens,
    )


def _run_step(scheduler: Scheduler) -> list[Batch]:
    """One step in which every row draws id 7 and nobody ends."""
    batches = []
    scheduler.start_step()
    while (scheduled := scheduler.schedule()) is not None:
        batch, rows = scheduled
        copy = Batch(
            batch.phase,
            batch.slots.copy(),
            batch.token_ids.copy(),
            batch.num_computed_tokens.copy(),
            batch.num_logits,
        )
        batches.append(copy)
        if batch.phase == "decode":
            scheduler.advance(np.full(len(batch.slots), 7))
            continue
        (sequence,) = rows
        scheduler.prefilled(sequence, batch.token_ids.shape[1])
        if sequence.num_computed_tokens == sequence.num_prompt_tokens:
            scheduler.start_decoding(sequence, 7)
    return batches


def _names(sequences: list[Sequence]) -> str:
    return "".join(sequence.request.request_id for sequence in sequences)


def _drain(queue: WaitingQueue) -> str:
    names = ""
    while queue.peek() is not None:
        names += queue.pop().request.request_id
    return names


def test_one_key_is_served_in_order() -> None:
    """First come, first served."""
    queue = WaitingQueue()
    for name in "abcd":
        queue.append(_sequence(name))
    assert (len(queue), _drain(queue), len(queue)) == (4, "abcd", 0)


def test_keys_take_turns() -> None:
    """Who sends ten at once does not hold up who sends one."""
    queue = WaitingQueue()
    for name in "aeiou":
        queue.append(_sequence(name, key="loud"))
    for name in "xy":
        queue.append(_sequence(name, key="quiet"))
    assert _drain(queue) == "axeyiou"


def test_a_key_that_comes_back_goes_to_the_end_of_the_round() -> None:
    """Leaving and returning does not jump the queue."""
    queue = WaitingQueue()
    queue.append(_sequence("a", key="1"))
    queue.append(_sequence("b", key="2"))
    queue.append(_sequence("c", key="2"))
    queue.pop()
    queue.append(_sequence("d", key="1"))
    assert _drain(queue) == "bdc"


def test_discarding_takes_one_out_and_keeps_the_order() -> None:
    """And says whether it was there."""
    queue = WaitingQueue()
    sequences = [_sequence(name) for name in "abc"]
    for sequence in sequences:
        queue.append(sequence)
    assert queue.discard(sequences[1])
    assert not queue.discard(sequences[1])
    assert len(queue) == 2
    assert _drain(queue) == "ac"


def test_what_peek_shows_is_what_pop_takes() -> None:
    """A sequence that does not fit yet stays first; nobody overtakes it."""
    scheduler = _scheduler(max_kv_tokens=100)
    for name, max_tokens in (("a", 80), ("b", 60), ("c", 1)):
        scheduler.waiting.append(_sequence(name, max_tokens=max_tokens, key=name))
    _run_step(scheduler)
    assert _names(scheduler.rows) == "a"
    scheduler.release([scheduler.rows[0]])
    _run_step(scheduler)
    assert _names(scheduler.rows) == "bc"


def test_short_prompts_share_the_budget_of_a_step() -> None:
    """Three of 3 tokens with a budget of 8: two whole ones and two tokens of the third."""
    scheduler = _scheduler()
    for name in "abc":
        scheduler.waiting.append(_sequence(name))
    batches = _run_step(scheduler)
    assert [batch.token_ids.shape[1] for batch in batches] == [3, 3, 2]
    assert [batch.num_logits for batch in batches] == [1, 1, 0]
    assert [batch.slots.tolist() for batch in batches] == [[0], [1], [2]]
    assert scheduler.running()[2] is scheduler.prefilling


def test_a_long_prompt_is_cut_and_decoding_goes_on_between() -> None:
    """One decode per step, before the chunk, and only the last chunk asks for logits."""
    scheduler = _scheduler()
    scheduler.waiting.append(_sequence("a"))
    _run_step(scheduler)
    scheduler.waiting.append(_sequence("b", length=20))
    steps = [_run_step(scheduler) for _ in range(4)]
    assert [[batch.phase for batch in step] for step in steps] == [
        ["decode", "prefill"],
        ["decode", "prefill"],
        ["decode", "prefill"],
        ["decode"],
    ]
    chunks = [step[1] for step in steps[:3]]
    assert [chunk.num_computed_tokens.tolist() for chunk in chunks] == [[0], [8], [16]]
    assert [chunk.num_logits for chunk in chunks] == [0, 0, 1]
    assert np.concatenate([chunk.token_ids[0] for chunk in chunks]).tolist() == list(range(20))
    assert steps[3][0].slots.tolist() == [0, 1]
    assert steps[3][0].num_computed_tokens.tolist() == [6, 20]


def test_wanting_all_prompt_logits_makes_chunks_that_fit_memory() -> None:
    """Each of them asks for every position, and they fill the step's budget together."""
    scheduler = _scheduler(vocab_size=2**22)  # four rows of logits in 64 MiB
    scheduler.waiting.append(_sequence("a", length=7, prompt_logprobs=0))
    batches = _run_step(scheduler)
    assert [(batch.token_ids.shape[1], batch.num_logits) for batch in batches] == [(4, 4), (3, 3)]


def test_no_more_run_than_there_are_slots() -> None:
    """The rest waits, and enters when a slot is free."""
    scheduler = _scheduler(max_num_seqs=2, chunk=100)
    for name in "abcd":
        scheduler.waiting.append(_sequence(name))
    _run_step(scheduler)
    assert (_names(scheduler.rows), scheduler.num_running, len(scheduler.waiting)) == ("ab", 2, 2)
    scheduler.release([scheduler.rows[0]])
    _run_step(scheduler)
    assert (_names(scheduler.rows), scheduler.num_running, len(scheduler.waiting)) == ("bc", 2, 1)


def test_freeing_rows_moves_the_last_ones_and_the_prefill() -> None:
    """Slots, positions and next tokens move along, and the runner is told in a safe order."""
    scheduler = _scheduler(max_num_seqs=8, chunk=100)
    for i, name in enumerate("abcde"):
        scheduler.waiting.append(_sequence(name, length=i + 1))
    _run_step(scheduler)
    scheduler.advance(np.array([20, 21, 22, 23, 24]))
    scheduler.waiting.append(_sequence("f", length=300))
    _run_step(scheduler)
    prefilling = scheduler.prefilling
    assert prefilling is not None
    a, b, c, d, e = scheduler.rows
    moves = scheduler.release([b, d])
    assert moves == [(e, 4, 1, 7), (prefilling, 5, 3, 100)]
    assert scheduler.rows == [a, e, c]
    assert [sequence.slot for sequence in (a, e, c, prefilling, b, d)] == [0, 1, 2, 3, -1, -1]
    (batch, _) = _run_step(scheduler)
    assert batch.num_computed_tokens.tolist() == [3, 7, 5]


def test_freeing_the_prefill_moves_nothing() -> None:
    """It holds the last slot."""
    scheduler = _scheduler()
    scheduler.waiting.append(_sequence("a"))
    scheduler.waiting.append(_sequence("b", length=30))
    _run_step(scheduler)
    assert scheduler.prefilling is not None
    assert scheduler.release([scheduler.prefilling]) == []
    assert scheduler.prefilling is None
    assert scheduler.num_running == 1


def test_stored_tokens_are_counted() -> None:
    """Those of the rows, and those of the prompt in the middle."""
    scheduler = _scheduler()
    scheduler.waiting.append(_sequence("a"))
    scheduler.waiting.append(_sequence("b", length=30))
    _run_step(scheduler)
    assert scheduler.num_kv_tokens == 3 + 5
    _run_step(scheduler)
    assert scheduler.num_kv_tokens == 4 + 13


@pytest.mark.parametrize("chunk", [1, 2, 5])
def test_an_empty_scheduler_has_nothing_to_do(chunk: int) -> None:
    """Neither before nor after its sequences."""
    scheduler = _scheduler(chunk=chunk)
    assert not scheduler.has_work
    scheduler.waiting.append(_sequence("a"))
    assert scheduler.has_work
    while not scheduler.rows:
        _run_step(scheduler)
    scheduler.release(scheduler.rows[:])
    assert not scheduler.has_work
    assert _run_step(scheduler) == []
