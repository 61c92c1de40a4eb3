"""Which sequences run, and where."""

import numpy as np
import pytest

from provider_core.engine.scheduled import Move
from provider_core.engine.scheduler import MAX_PREFILLING, Scheduler
from provider_core.engine.sequence import Sequence
from provider_core.engine.step_budget import StepBudget
from provider_core.interfaces import Batch
from tests.unit.engine.sequences import new_sequence


def _scheduler(
    *, max_num_seqs: int = 4, chunk: int = 8, max_kv_tokens: int = 100_000, vocab_size: int = 50
) -> Scheduler:
    return Scheduler(
        max_num_seqs=max_num_seqs,
        vocab_size=vocab_size,
        budget=StepBudget(max_tokens=chunk, target_itl_s=1.0),
        max_kv_tokens=max_kv_tokens,
    )


def _run_step(scheduler: Scheduler) -> list[Batch]:
    """One step in which every row draws id 7 and nobody ends."""
    batches = []
    scheduler.start_step()
    while (scheduled := scheduler.schedule()) is not None:
        batch = scheduled.batch
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
        (sequence,) = scheduled.rows
        scheduler.prefilled(sequence, batch.token_ids.shape[1])
        if sequence.num_computed_tokens == sequence.num_prompt_tokens:
            scheduler.start_decoding(sequence, 7)
    return batches


def _chunks(batches: list[Batch]) -> list[int]:
    return [batch.token_ids.shape[1] for batch in batches if batch.phase == "prefill"]


def _names(sequences: list[Sequence]) -> str:
    return "".join(sequence.request.request_id for sequence in sequences)


def test_a_sequence_that_does_not_fit_yet_stays_first() -> None:
    """Nobody overtakes who waits for memory."""
    scheduler = _scheduler(max_kv_tokens=100)
    for name, max_tokens in (("a", 80), ("b", 60), ("c", 1)):
        scheduler.waiting.append(new_sequence(name, max_tokens=max_tokens, key=name))
    _run_step(scheduler)
    assert _names(scheduler.rows) == "a"
    scheduler.release([scheduler.rows[0]])
    _run_step(scheduler)
    assert _names(scheduler.rows) == "bc"


def test_short_prompts_share_the_budget_of_a_step() -> None:
    """Three of 3 tokens with a budget of 9."""
    scheduler = _scheduler(chunk=9)
    for name in "abc":
        scheduler.waiting.append(new_sequence(name))
    batches = _run_step(scheduler)
    assert [batch.token_ids.shape[1] for batch in batches] == [3, 3, 3]
    assert [batch.num_logits for batch in batches] == [1, 1, 1]
    assert [batch.slots.tolist() for batch in batches] == [[0], [1], [2]]
    assert _names(scheduler.running()) == "abc"


def test_a_long_prompt_is_cut_and_decoding_goes_on_between() -> None:
    """One decode per step, before the chunk, and only the last chunk asks for logits."""
    scheduler = _scheduler()
    scheduler.waiting.append(new_sequence("a"))
    _run_step(scheduler)
    scheduler.waiting.append(new_sequence("b", length=20))
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


@pytest.mark.parametrize(
    ("length", "chunk", "expected"),
    [
        (1, 8, [1]),
        (9, 8, [7, 2]),
        (17, 8, [8, 7, 2]),
        (4, 3, [2, 2]),
        (7, 3, [3, 2, 2]),
        (8, 3, [3, 3, 2]),
    ],
)
def test_a_prompt_is_never_cut_to_one_token(length: int, chunk: int, expected: list[int]) -> None:
    """Neither in front nor at the end: one token behind others is computed by other kernels."""
    scheduler = _scheduler(chunk=chunk)
    scheduler.waiting.append(new_sequence("a", length=length))
    sizes = []
    while not scheduler.rows:
        sizes += _chunks(_run_step(scheduler))
    assert sizes == expected


def test_a_rest_of_the_budget_too_small_to_cut_is_left() -> None:
    """The second prompt starts in the next step."""
    scheduler = _scheduler(chunk=8)
    scheduler.waiting.append(new_sequence("a", length=6))
    scheduler.waiting.append(new_sequence("b", length=6))
    assert [_chunks(_run_step(scheduler)) for _ in range(2)] == [[6], [6]]


def test_a_much_shorter_prompt_overtakes_a_long_one() -> None:
    """With half of the budget; the long one has the other half and all that is left over."""
    scheduler = _scheduler(max_num_seqs=8, chunk=100)
    scheduler.waiting.append(new_sequence("long", length=1000))
    assert _chunks(_run_step(scheduler)) == [100]
    for name in "abcd":
        scheduler.waiting.append(new_sequence(name, length=20))
    assert _chunks(_run_step(scheduler)) == [20, 20, 10, 50]
    assert _names(scheduler.rows) == "ab"
    assert _chunks(_run_step(scheduler)) == [10, 20, 70]
    assert _names(scheduler.rows) == "abcd"


def test_a_prompt_of_like_length_waits_its_turn() -> None:
    """Two halves at half the speed would both come later."""
    scheduler = _scheduler(chunk=100)
    for name in "ab":
        scheduler.waiting.append(new_sequence(name, length=250))
    sizes = [_chunks(_run_step(scheduler)) for _ in range(5)]
    assert sizes == [[100], [100], [50, 50], [100], [100]]


def test_nobody_overtakes_who_fits_into_the_step() -> None:
    """First come, first served, as long as that delays nobody."""
    scheduler = _scheduler(chunk=100)
    for name, length in (("a", 60), ("b", 10), ("c", 30)):
        scheduler.waiting.append(new_sequence(name, length=length))
    assert _chunks(_run_step(scheduler)) == [60, 10, 30]


def test_only_so_many_prompts_are_half_computed() -> None:
    """Further ones must fit into what is left of the step."""
    scheduler = _scheduler(max_num_seqs=10, chunk=100)
    for i in range(6):
        scheduler.waiting.append(new_sequence(str(i), length=4096 >> i))
        _run_step(scheduler)
    assert len(scheduler.prefilling) == MAX_PREFILLING
    scheduler.waiting.append(new_sequence("short", length=50))
    _run_step(scheduler)
    assert _names(scheduler.rows) == "short"


def test_who_overtakes_clears_the_slot_behind_the_rows_once() -> None:
    """The half computed prompt moves to the far end, and to its place before its last chunk."""
    scheduler = _scheduler(max_num_seqs=5, chunk=100)
    scheduler.waiting.append(new_sequence("long", length=300))
    _run_step(scheduler)
    [long] = scheduler.prefilling
    moves: list[Move] = []
    for name in "ab":
        scheduler.waiting.append(new_sequence(name, length=20))
        scheduler.start_step()
        while (scheduled := scheduler.schedule()) is not None:
            moves += scheduled.moves
            if scheduled.batch.phase == "decode":
                continue
            scheduler.prefilled(scheduled.rows[0], scheduled.batch.token_ids.shape[1])
            if scheduled.batch.num_logits:
                scheduler.start_decoding(scheduled.rows[0], 7)
    assert _names(scheduler.rows) == "ab"
    assert moves == [(long, 0, 4, 100)]
    scheduler.start_step()
    scheduler.schedule()
    last = scheduler.schedule()
    assert last is not None
    assert (last.moves, last.batch.slots.tolist()) == ([(long, 4, 2, 260)], [2])


def test_with_every_slot_taken_the_prompt_behind_the_rows_goes_first() -> None:
    """Another could not become a row: no slot is free to clear its place."""
    scheduler = _scheduler(max_num_seqs=2, chunk=100)
    scheduler.waiting.append(new_sequence("long", length=1000))
    _run_step(scheduler)
    scheduler.waiting.append(new_sequence("medium", length=200))
    scheduler.waiting.append(new_sequence("short", length=10))
    _run_step(scheduler)  # the short one, then the long one; the medium one has no slot
    assert _names(scheduler.rows) == "short"
    assert _names(scheduler.prefilling) == "long"
    while scheduler.prefilling:
        _run_step(scheduler)
    assert _names(scheduler.rows) == "shortlong"


def test_wanting_all_prompt_logits_makes_chunks_that_fit_memory() -> None:
    """Each of them asks for every position, and they fill the step's budget together."""
    scheduler = _scheduler(vocab_size=2**22)  # four rows of logits in 64 MiB
    scheduler.waiting.append(new_sequence("a", length=7, prompt_logprobs=0))
    batches = _run_step(scheduler)
    assert [(batch.token_ids.shape[1], batch.num_logits) for batch in batches] == [(4, 4), (3, 3)]


def test_the_first_row_of_a_step_ends_the_time_without_a_target() -> None:
    """Prompts may take the whole chunk while nobody decodes; then somebody waits for a token."""
    scheduler = _scheduler(max_num_seqs=8, chunk=512)
    scheduler.budget.note_decode(0.25)
    scheduler.budget.note_prefill(100, 1.0)  # 0.9 s less 0.25 s is 64 tokens
    for i in range(5):
        scheduler.waiting.append(new_sequence(str(i), length=30))
    assert _chunks(_run_step(scheduler)) == [30, 30, 30, 4]
    assert _chunks(_run_step(scheduler)) == [26, 30]


def test_no_more_run_than_there_are_slots() -> None:
    """The rest waits, and enters when a slot is free."""
    scheduler = _scheduler(max_num_seqs=2, chunk=100)
    for name in "abcd":
        scheduler.waiting.append(new_sequence(name))
    _run_step(scheduler)
    assert (_names(scheduler.rows), scheduler.num_running, len(scheduler.waiting)) == ("ab", 2, 2)
    scheduler.release([scheduler.rows[0]])
    _run_step(scheduler)
    assert (_names(scheduler.rows), scheduler.num_running, len(scheduler.waiting)) == ("bc", 2, 1)


def test_freeing_rows_moves_the_last_ones_only() -> None:
    """Slots, positions and next tokens move along, in a safe order; a half prompt stays put."""
    scheduler = _scheduler(max_num_seqs=8, chunk=100)
    for i, name in enumerate("abcde"):
        scheduler.waiting.append(new_sequence(name, length=i + 1))
    _run_step(scheduler)
    scheduler.advance(np.array([20, 21, 22, 23, 24]))
    scheduler.waiting.append(new_sequence("f", length=300))
    _run_step(scheduler)
    [f] = scheduler.prefilling
    a, b, c, d, e = scheduler.rows
    assert scheduler.release([b, d]) == [(e, 4, 1, 7)]
    assert scheduler.rows == [a, e, c]
    assert [sequence.slot for sequence in (a, e, c, f, b, d)] == [0, 1, 2, 5, -1, -1]
    (batch, _) = _run_step(scheduler)
    assert batch.num_computed_tokens.tolist() == [3, 7, 5]
    scheduler.start_step()
    scheduler.schedule()
    last = scheduler.schedule()
    assert last is not None
    assert last.moves == [(f, 5, 3, 200)]
    assert last.batch.slots.tolist() == [3]


def test_freeing_a_half_computed_prompt_moves_nothing() -> None:
    """Its slot is behind the rows."""
    scheduler = _scheduler()
    scheduler.waiting.append(new_sequence("a"))
    scheduler.waiting.append(new_sequence("b", length=30))
    _run_step(scheduler)
    [b] = scheduler.prefilling
    assert scheduler.release([b]) == []
    assert scheduler.prefilling == []
    assert scheduler.num_running == 1


def test_stored_tokens_are_counted() -> None:
    """Those of the rows, and those of the prompt in the middle."""
    scheduler = _scheduler()
    scheduler.waiting.append(new_sequence("a"))
    scheduler.waiting.append(new_sequence("b", length=30))
    _run_step(scheduler)
    assert scheduler.num_kv_tokens == 3 + 5
    _run_step(scheduler)
    assert scheduler.num_kv_tokens == 4 + 13


@pytest.mark.parametrize("chunk", [3, 5])
def test_an_empty_scheduler_has_nothing_to_do(chunk: int) -> None:
    """Neither before nor after its sequences."""
    scheduler = _scheduler(chunk=chunk)
    assert not scheduler.has_work
    scheduler.waiting.append(new_sequence("a"))
    assert scheduler.has_work
    while not scheduler.rows:
        _run_step(scheduler)
    scheduler.release(scheduler.rows[:])
    assert not scheduler.has_work
    assert _run_step(scheduler) == []
