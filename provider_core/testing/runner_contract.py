"""`RunnerContract`: what every `ModelRunner` must do, as tests to inherit."""

from collections.abc import Awaitable, Callable
from contextlib import closing

import numpy as np
import numpy.typing as npt

from provider_core.engine import LLMEngine
from provider_core.interfaces import BlockStore, Engine, MixedRunner, ModelRunner, RunnerInfo
from provider_core.testing.batches import decode_batch, prefill_batch, prefill_batches
from provider_core.testing.engine_contract import EngineContract, check_info
from provider_core.testing.generation import ContractViolation, generate, submit, succeeded
from provider_core.testing.wrapped_runners import BlockingRunner, FailingRunner


class RunnerContract(EngineContract):
    """Inherit, name the class `Test...`, and say how a runner is made.

    ::

        class TestMyRunner(RunnerContract):
            def make_runner(self) -> ModelRunner:
                return MyRunner(...)

    The tests compare greedy ids, so make it in a mode whose results do not depend on the size of
    the batch. Three slots and 128 positions are enough. The tests of `EngineContract` run over
    the core's own engine on top of it.
    """

    def make_runner(self) -> ModelRunner:
        """A new runner, not warmed up."""
        raise NotImplementedError

    def make_engine(self) -> Engine:
        """The core's engine over a new runner."""
        runner = self.make_runner()
        runner.warm_up()
        return LLMEngine(runner, prefill_chunk_tokens=64)

    def test_info_is_possible(self) -> None:
        """Facts a scheduler can work with."""
        runner = self.make_runner()
        info = runner.info
        runner.close()
        check_info(info)
        if info.unsupported_params:
            raise ContractViolation(
                "info.unsupported_params is for engines: the core samples for a runner"
            )

    def test_logits_have_the_promised_shape(self) -> None:
        """For no, one and all positions of a prefill, and for a decode: float32 and finite."""
        with closing(self._warm_runner()) as runner:
            for num_logits in (0, 1, 5):
                logits = runner.execute_model(prefill_batch(0, range(5), num_logits=num_logits))
                _check_logits(
                    logits, num_logits, runner.info, f"prefill with num_logits={num_logits}"
                )
            logits = runner.execute_model(decode_batch([1], [5]))
            _check_logits(logits, 1, runner.info, "decode of one row")

    def test_logits_of_all_positions_agree_with_those_of_the_last(self) -> None:
        """Asking for more positions does not change the last one's likeliest id."""
        with closing(self._warm_runner()) as runner:
            every = runner.execute_model(prefill_batch(0, range(6), num_logits=6))
            expected = int(every[-1].argmax())
            last = runner.execute_model(prefill_batch(0, range(6), num_logits=1))
            _compare(expected, int(last[0].argmax()), "the last of all positions", "the last alone")

    def test_chunked_prefill_equals_whole(self) -> None:
        """A prompt computed in pieces of any size is the same prompt."""
        with closing(self._warm_runner()) as runner:
            prompt = self._prompt(runner, 23)
            expected = self._continue(runner, prompt)
            for size in (3, 4, 21):
                actual = self._continue(runner, prompt, chunk=size)
                _compare(
                    expected, actual, "the text after a whole prefill", f"after chunks of {size}"
                )

    def test_a_reused_slot_forgets(self) -> None:
        """What a longer, earlier sequence left in a slot changes nothing."""
        with closing(self._warm_runner()) as runner:
            prompt = self._prompt(runner, 5)
            expected = self._continue(runner, prompt)
            longer = self._prompt(runner, 40)[::-1]
            self._continue(runner, longer)
            actual = self._continue(runner, prompt)
            _compare(expected, actual, "the text in a fresh slot", "in a used slot")

    def test_a_slot_goes_back(self) -> None:
        """Positions that are run again forget what they held: a draft that was wrong."""
        with closing(self._warm_runner()) as runner:
            prompt = self._prompt(runner, 9)
            expected = self._continue(runner, prompt)
            token_ids = [self._first(runner, 0, prompt)]
            while len(token_ids) < len(expected):
                start = len(prompt) + len(token_ids) - 1
                draft = [token_ids[-1], *self._prompt(runner, 5)[::-1]]
                batch = prefill_batch(0, draft, num_computed_tokens=start, num_logits=len(draft))
                _check_logits(runner.execute_model(batch), len(draft), runner.info, "a draft")
                logits = runner.execute_model(decode_batch([token_ids[-1]], [start]))
                token_ids.append(int(logits[0].argmax()))
            _compare(expected, token_ids, "the text", "with a wrong draft tried at each id")

    def test_every_slot_is_alike(self) -> None:
        """The same prompt makes the same id in each slot."""
        with closing(self._warm_runner()) as runner:
            prompt = self._prompt(runner, 9)
            slots = range(runner.info.max_num_seqs)
            first = [self._first(runner, slot, prompt) for slot in slots]
            if len(set(first)) != 1:
                raise ContractViolation(f"the first id of one prompt by slot is {first}")

    def test_move_slot_moves_the_text(self) -> None:
        """The target goes on as the source would have, and other slots keep theirs."""
        with closing(self._warm_runner()) as runner:
            if runner.info.max_num_seqs < 3:
                raise ContractViolation("make_runner must give at least 3 slots for this test")
            moved, kept = self._prompt(runner, 11), self._prompt(runner, 7)[::-1]
            expected = [self._continue(runner, kept), self._continue(runner, moved)]
            actual = [[self._first(runner, 0, kept)]]
            self._first(runner, 1, self._prompt(runner, 30)[::-1])
            actual.append([self._first(runner, 2, moved)])
            runner.move_slot(2, 1, len(moved))
            for i in range(len(expected[0]) - 1):
                batch = decode_batch([ids[-1] for ids in actual], [len(kept) + i, len(moved) + i])
                for row, token_id in enumerate(runner.execute_model(batch).argmax(axis=1).tolist()):
                    actual[row].append(token_id)
            _compare(expected[0], actual[0], "the text of slot 0", "after a move beside it")
            _compare(expected[1], actual[1], "the text before the move", "after the move")

    def test_loaded_blocks_have_the_bits_that_were_saved(self) -> None:
        """In any slot, after other texts; a runner that stores no blocks has nothing to show."""
        with closing(self._warm_runner()) as runner:
            if not isinstance(runner, BlockStore) or runner.info.num_cache_blocks < 6:
                return
            size = runner.info.cache_block_size
            texts = [self._prompt(runner, 2 * size + 5), self._prompt(runner, 2 * size + 3)[::-1]]
            ids = [[4, 1], [0, 5]]
            expected = []
            for slot, text in enumerate(texts):
                runner.execute_model(prefill_batch(slot, text[: 2 * size], num_logits=0))
                rest = prefill_batch(slot, text[2 * size :], num_computed_tokens=2 * size)
                expected.append(runner.execute_model(rest).copy())
                runner.save_blocks(slot, 0, ids[slot][:1])
                runner.save_blocks(slot, size, ids[slot][1:])
            for slot in range(2):
                runner.execute_model(prefill_batch(slot, self._prompt(runner, 40)[::-1]))
            for slot, i in ((1, 0), (0, 1), (2, 0)):
                runner.load_blocks(slot, ids[i])
                rest = prefill_batch(slot, texts[i][2 * size :], num_computed_tokens=2 * size)
                if not np.array_equal(runner.execute_model(rest), expected[i]):
                    raise ContractViolation(f"slot {slot} filled from blocks gives other logits")

    def test_a_mixed_call_does_what_two_do(self) -> None:
        """For the prompt and for every row, then and later; if the runner mixes at all."""
        with closing(self._warm_runner()) as runner:
            if not isinstance(runner, MixedRunner) or not runner.info.mixes_phases:
                return
            texts = [self._prompt(runner, 9), self._prompt(runner, 12)[::-1]]
            prompt = self._prompt(runner, 14)[::-1]
            made = []
            for is_mixed in (True, False):  # the slots are fresh for the first
                for slot, text in enumerate(texts):
                    self._first(runner, slot, text)
                runner.execute_model(prefill_batch(2, prompt[:5], num_logits=0))
                rest = prefill_batch(2, prompt[5:], num_computed_tokens=5)
                rows = decode_batch([3, 1], [len(text) for text in texts])
                if is_mixed:
                    ids = runner.execute_mixed(rest, rows).argmax(axis=1).tolist()
                else:
                    ids = runner.execute_model(rest).argmax(axis=1).tolist()
                    ids += runner.execute_model(rows).argmax(axis=1).tolist()
                lengths = [*(len(text) + 1 for text in texts), len(prompt)]
                after = runner.execute_model(decode_batch([*ids[1:], ids[0]], lengths))
                made.append(ids + after.argmax(axis=1).tolist())
            _compare(made[1], made[0], "what two calls make", "in one call")

    def test_a_failed_step_hurts_only_its_batch(self) -> None:
        """After one failure the next sequence makes what it would have made."""
        runner = FailingRunner(self._warm_runner())

        async def check(engine: Engine) -> None:
            prompt = self.prompts(engine)[3]
            expected = await generate(engine, "before", prompt, self.greedy())
            runner.fails_next = True
            failed = submit(engine, "failed", prompt, self.greedy())
            last = await failed.result()
            if last.finish_reason != "error":
                raise ContractViolation(f"a failed step ended with {last.finish_reason!r}")
            engine.check_health()
            actual = await generate(engine, "after", prompt, self.greedy())
            _compare(expected, actual, "the text before a failed step", "after it")

        self._run_on(runner, check)

    def test_abort_within_a_step(self) -> None:
        """An abort that comes while the runner computes ends that sequence and no other."""
        runner = BlockingRunner(self._warm_runner())

        async def check(engine: Engine) -> None:
            prompts = self.prompts(engine)
            expected = await generate(engine, "alone", prompts[2], self.greedy())
            runner.hold()
            gone = submit(engine, "gone", prompts[1], self.greedy())
            stays = submit(engine, "stays", prompts[2], self.greedy())
            await runner.is_inside()
            engine.abort("gone")
            runner.let_go()
            last = await gone.result()
            if last.finish_reason != "abort" or len(gone.token_ids) > 1:
                raise ContractViolation(
                    f"aborted within its first step, it ended with {last.finish_reason!r}"
                    f" after {len(gone.token_ids)} ids"
                )
            actual = succeeded(stays, await stays.result())
            _compare(expected, actual, "the text alone", "after a neighbour was aborted")

        self._run_on(runner, check)

    def test_runner_close_is_idempotent(self) -> None:
        """Twice, also without having run."""
        unused, used = self.make_runner(), self._warm_runner()
        used.execute_model(prefill_batch(0, [1], num_logits=1))
        for runner, what in ((unused, "that never ran"), (used, "that ran")):
            runner.close()
            try:
                runner.close()
            except Exception as error:
                raise ContractViolation(
                    f"the second close of a runner {what} raised {error!r}"
                ) from error

    def _warm_runner(self) -> ModelRunner:
        runner = self.make_runner()
        runner.warm_up()
        return runner

    def _run_on(self, runner: ModelRunner, check: Callable[[Engine], Awaitable[None]]) -> None:
        self.run(check, lambda: LLMEngine(runner, prefill_chunk_tokens=64))

    def _prompt(self, runner: ModelRunner, length: int) -> list[int]:
        return [(3 + 11 * i) % runner.info.vocab_size for i in range(length)]

    def _first(self, runner: ModelRunner, slot: int, prompt: list[int]) -> int:
        """Prefill a slot; return the likeliest id after it."""
        return int(runner.execute_model(prefill_batch(slot, prompt))[0].argmax())

    def _continue(self, runner: ModelRunner, prompt: list[int], chunk: int = 64) -> list[int]:
        """Prefill slot 0 in chunks of at most that size; return the next few greedy ids."""
        logits = np.zeros((1, 1), dtype=np.float32)
        for batch in prefill_batches(0, prompt, chunk=chunk):
            logits = runner.execute_model(batch)
        token_ids = [int(logits[-1].argmax())]
        for position in range(len(prompt), len(prompt) + self.num_new_tokens - 1):
            logits = runner.execute_model(decode_batch([token_ids[-1]], [position]))
            token_ids.append(int(logits[0].argmax()))
        return token_ids


def _compare(expected: object, actual: object, what: str, against: str) -> None:
    if expected != actual:
        raise ContractViolation(f"{what} is {expected}, and {against} it is {actual}")


def _check_logits(
    logits: npt.NDArray[np.float32], num_rows: int, info: RunnerInfo, where: str
) -> None:
    expected = (num_rows, info.vocab_size)
    if logits.shape != expected or logits.dtype != np.float32:
        raise ContractViolation(
            f"{where} gave {logits.dtype} logits of shape {logits.shape}, not float32 {expected}"
        )
    if not np.isfinite(logits).all():
        raise ContractViolation(f"{where} gave logits that are not finite")
