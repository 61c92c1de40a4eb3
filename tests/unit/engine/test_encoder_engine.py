"""The encoder's engine: order, batches, turns, failures, and how requests end."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from provider_core.encoders import Encoder, EncoderRow
from provider_core.engine.encoder_engine import (
    MAX_CONSECUTIVE_FAILURES,
    MIN_PADDED_LEN,
    EncoderEngine,
    cut_batches,
)
from provider_core.errors import DeadlineExceeded, EngineDead, StepFailed
from provider_core.testing import ScriptedEncoder
from provider_core.testing.scripted_encoder import expected_vector

SIZE = 8


def row(*token_ids: int) -> EncoderRow:
    """A row of these ids."""
    return EncoderRow(np.array(token_ids, np.int32))


def rows_of(*lengths: int) -> list[EncoderRow]:
    """Different rows of these lengths."""
    return [row(*range(i + 1, i + 1 + length)) for i, length in enumerate(lengths)]


@asynccontextmanager
async def engine_over(encoder: Encoder, max_batch_tokens: int = 64) -> AsyncIterator[EncoderEngine]:
    """An engine, closed in the end."""
    engine = EncoderEngine(encoder, max_batch_tokens=max_batch_tokens)
    try:
        yield engine
    finally:
        await engine.close()


class Hold:
    """Stops each call of an encoder until it is let go, and keeps what each was asked."""

    def __init__(self) -> None:
        self.calls: list[list[list[int]]] = []
        self._entered = threading.Semaphore(0)
        self._may_go = threading.Semaphore(0)

    def __call__(self, rows: Sequence[EncoderRow]) -> None:
        """Wait inside a call."""
        self.calls.append([each.token_ids.tolist() for each in rows])
        self._entered.release()
        assert self._may_go.acquire(timeout=20)

    async def entered(self) -> None:
        """Wait for the next call to begin."""
        assert await asyncio.to_thread(self._entered.acquire, timeout=20)

    def let_go(self, num_calls: int = 1) -> None:
        """Let so many calls run."""
        self._may_go.release(num_calls)


@given(
    st.lists(st.integers(1, 600), min_size=1, max_size=200),
    st.integers(1, 40),
    st.integers(1, 2000),
)
def test_batches_cover_all_rows_within_their_limits(
    lengths: list[int], max_rows: int, max_tokens: int
) -> None:
    """In order, none left out, none too wide, and no more padding than text but for short ones."""
    lengths.sort(reverse=True)
    slices = cut_batches(lengths, max_rows=max_rows, max_tokens=max_tokens)
    batches = [lengths[each] for each in slices]
    assert [length for batch in batches for length in batch] == lengths
    for batch in batches:
        assert len(batch) <= max_rows
        assert len(batch) == 1 or len(batch) * batch[0] <= max_tokens
        assert batch[0] <= max(MIN_PADDED_LEN, 2 * batch[-1] + 1)


async def test_vectors_come_in_the_order_of_the_rows() -> None:
    """However they were sorted and cut on the way."""
    rows = rows_of(3, 40, 1, 7, 40, 2, 65, 9)
    async with engine_over(ScriptedEncoder(embedding_size=SIZE, max_num_seqs=3)) as engine:
        vectors = await engine.encode(rows)
    assert np.array_equal(vectors, [expected_vector(each, SIZE) for each in rows])


async def test_concurrent_requests_get_their_own_vectors() -> None:
    """Batches mix requests; results do not."""
    requests = [rows_of(*range(1 + i % 5, 20 + i)) for i in range(30)]
    async with engine_over(ScriptedEncoder(embedding_size=SIZE)) as engine:
        answers = await asyncio.gather(*map(engine.encode, requests))
        load = engine.load()
    for rows, vectors in zip(requests, answers, strict=True):
        assert np.array_equal(vectors, [expected_vector(each, SIZE) for each in rows])
    num_tokens = sum(len(each) for rows in requests for each in rows)
    assert load.num_prompt_tokens == num_tokens
    assert load.num_steps < sum(map(len, requests))
    assert (load.num_running, load.num_waiting, load.num_waiting_prompt_tokens) == (0, 0, 0)


async def test_a_single_text_does_not_wait_for_a_thousand() -> None:
    """Requests take turns, row by row: the newcomer is in the next window."""
    hold = Hold()
    encoder = ScriptedEncoder(on_encode=hold, max_num_seqs=4)
    async with engine_over(encoder, max_batch_tokens=8) as engine:
        many = asyncio.create_task(engine.encode(rows_of(*[2] * 1000)))
        await hold.entered()
        one = asyncio.create_task(engine.encode([row(7, 7)]))
        await asyncio.sleep(0)
        hold.let_go(10**6)
        await one
        assert next(i for i, call in enumerate(hold.calls) if [7, 7] in call) < 10
        await many
    assert len(hold.calls) > 200


async def test_load_tells_what_waits() -> None:
    """A request whose rows are all in the running window is not waiting."""
    hold = Hold()
    async with engine_over(ScriptedEncoder(on_encode=hold)) as engine:
        first = asyncio.create_task(engine.encode(rows_of(3)))
        await hold.entered()
        second = asyncio.create_task(engine.encode(rows_of(4, 5)))
        await asyncio.sleep(0)
        load = engine.load()
        assert (load.num_running, load.num_waiting, load.num_waiting_prompt_tokens) == (1, 1, 9)
        assert load.step_started_s is not None
        hold.let_go(2)
        await asyncio.gather(first, second)


async def test_a_cancelled_request_is_not_computed() -> None:
    """What has not begun is taken back, and others go on."""
    hold = Hold()
    async with engine_over(ScriptedEncoder(on_encode=hold)) as engine:
        first = asyncio.create_task(engine.encode([row(1)]))
        await hold.entered()
        second = asyncio.create_task(engine.encode([row(2)]))
        third = asyncio.create_task(engine.encode([row(3)]))
        await asyncio.sleep(0)
        second.cancel()
        with pytest.raises(asyncio.CancelledError):
            await second
        hold.let_go(10)
        await asyncio.gather(first, third)
    assert hold.calls == [[[1]], [[3]]]


async def test_a_deadline_ends_the_wait() -> None:
    """With the error that every dialect has a status for."""
    hold = Hold()
    async with engine_over(ScriptedEncoder(on_encode=hold)) as engine:
        with pytest.raises(DeadlineExceeded):
            await engine.encode([row(1)], deadline_s=0.0)
        hold.let_go(10)


async def test_one_failed_batch_ends_its_requests_only() -> None:
    """The engine goes on, and a plugin's own text does not reach clients."""
    failures = [ValueError("secret"), None]

    def fail(_: Sequence[EncoderRow]) -> None:
        failure = failures.pop(0)
        if failure is not None:
            raise failure

    async with engine_over(ScriptedEncoder(on_encode=fail)) as engine:
        with pytest.raises(StepFailed) as caught:
            await engine.encode([row(1)])
        assert "secret" not in caught.value.message
        assert len(await engine.encode([row(1)])) == 1


def nan_in_the_first(values: np.ndarray) -> np.ndarray:
    """Spoil one row's output."""
    values[0] = np.nan
    return values


async def test_a_row_that_is_not_finite_spoils_no_other() -> None:
    """Requests beside it in the batch get their vectors."""
    hold = Hold()
    encoder = ScriptedEncoder(on_encode=hold, corrupt=nan_in_the_first)
    async with engine_over(encoder) as engine:
        blocker = asyncio.create_task(engine.encode([row(9)]))
        await hold.entered()
        spoiled = asyncio.create_task(engine.encode(rows_of(6)))
        good = asyncio.create_task(engine.encode([row(5, 6)]))
        await asyncio.sleep(0)
        hold.let_go(10)
        results = await asyncio.gather(blocker, spoiled, good, return_exceptions=True)
    assert [isinstance(result, StepFailed) for result in results] == [True, True, False]
    assert np.array_equal(results[2], [expected_vector(row(5, 6), 8)])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "corrupt", [lambda values: values[:, :3], lambda values: values.astype(np.float64)]
)
async def test_output_of_another_shape_fails(
    corrupt: Callable[[np.ndarray], np.ndarray],
) -> None:
    """An encoder that breaks its promise is named for it."""
    async with engine_over(ScriptedEncoder(corrupt=corrupt)) as engine:
        with pytest.raises(StepFailed, match="float"):
            await engine.encode([row(1)])


async def test_failure_after_failure_is_death() -> None:
    """Everybody hears of it, and the encoder is closed."""

    def fail(_: Sequence[EncoderRow]) -> None:
        raise RuntimeError

    encoder, deaths = ScriptedEncoder(on_encode=fail), list[EngineDead]()
    engine = EncoderEngine(encoder, on_dead=deaths.append)
    for _ in range(MAX_CONSECUTIVE_FAILURES):
        with pytest.raises(StepFailed):
            await engine.encode([row(1)])
    await engine.close()
    assert [type(death) for death in deaths] == [EngineDead]
    assert encoder.is_closed
    with pytest.raises(EngineDead, match="one after another"):
        engine.check_health()


async def test_closing_answers_those_who_wait() -> None:
    """Nobody waits forever."""
    hold = Hold()
    engine = EncoderEngine(ScriptedEncoder(on_encode=hold))
    waiting = [asyncio.create_task(engine.encode([row(1)]))]
    await hold.entered()
    waiting += [asyncio.create_task(engine.encode([row(i)])) for i in (2, 3)]
    await asyncio.sleep(0)
    closing = asyncio.create_task(engine.close())
    await asyncio.sleep(0)
    hold.let_go(10)
    results = await asyncio.gather(*waiting, return_exceptions=True)
    await closing
    assert [isinstance(result, EngineDead) for result in results] == [False, True, True]
    with pytest.raises(EngineDead, match="closed"):
        await engine.encode([row(1)])
