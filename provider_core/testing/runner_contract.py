"""`RunnerContract`: what every `ModelRunner` must do, as tests to inherit."""

from collections.abc import Awaitable, Callable
from contextlib import closing
from copy import deepcopy

import numpy as np

from provider_core.engine import LLMEngine
from provider_core.interfaces import BlockStore, Engine, MixedRunner, ModelRunner
from provider_core.testing.batches import decode_batch, prefill_batch, prefill_batches
from provider_core.testing.candidate_checks import check_candidates_of
from provider_core.testing.engine_contract import EngineContract, check_info
from provider_core.testing.generation import ContractViolation, generate, submit, succeeded
from provider_core.testing.logit_checks import check_close, check_logits, check_same
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
                check_logits(
                    logits, num_logits, runner.info, f"prefill with num_logits={num_logits}"
                )
            logits = runner.execute_model(decode_batch([1], [5]))
            check_logits(logits, 1, runner.info, "decode of one row")

    def test_logits_of_all_positions_agree_with_those_of_the_last(self) -> None:
        """Each position's logits are those of a prompt that ends there."""
        with closing(self._warm_runner()) as runner:
            prompt = self._prompt(runner, 8)
            every = runner.execute_model(prefill_batch(0, prompt, num_logits=8)).copy()
            shortest = 2 if runner.info.verify_margin is None else 1  # other kernels, for one token
            ends = range(shortest, len(prompt) + 1)
            alone = [runner.execute_model(prefill_batch(0, prompt[:end])).copy() for end in ends]
            what = "logits of a prompt's positions, one by one against all at once"
            check_close(np.concatenate(alone), every[shortest - 1 :], runner.info, what)

    def test_every_id_is_an_input(self) -> None:
        """Over the whole vocabulary; none spoils what comes after it."""
        with closing(self._warm_runner()) as runner:
            info, prompt = runner.info, self._prompt(runner, 9)
            expected = self._continue(runner, prompt)
            count = min(info.vocab_size, 16 * info.max_model_len)
            token_ids = np.linspace(0, info.vocab_size - 1, count).astype(int).tolist()
            for start in range(0, count - 1, info.max_model_len):
                piece = token_ids[start : start + info.max_model_len]
                where = f"a prompt of the ids from {piece[0]} to {piece[-1]}"
                check_logits(runner.execute_model(prefill_batch(0, piece)), 1, info, where)
            actual = self._continue(runner, prompt)
            check_same(expected, actual, "the text", "after prompts of all ids")

    def test_a_batch_is_left_as_it_was(self) -> None:
        """Its arrays are the scheduler's, which goes on with them."""
        with closing(self._warm_runner()) as runner:
            prompt = self._prompt(runner, 9)
            for batch in (prefill_batch(0, prompt), decode_batch([prompt[0]], [9])):
                before = deepcopy(batch)
                runner.execute_model(batch)
                for name in ("slots", "token_ids", "num_computed_tokens"):
                    if not np.array_equal(getattr(before, name), getattr(batch, name)):
                        raise ContractViolation(f"a {batch.phase} wrote into its batch's {name}")

    def test_a_slot_holds_every_position(self) -> None:
        """A text that fills its slot, whole and in pieces: nothing is lost at the end."""
        with closing(self._warm_runner()) as runner:
            info = runner.info
            end = info.max_model_len
            first, _, second = self._ids(runner, 3)
            text = self._ids(runner, end - 8) + [first, second] * 4
            expected = runner.execute_model(prefill_batch(0, text, num_logits=8)).copy()
            for batch in prefill_batches(0, text[:-8], chunk=64):
                runner.execute_model(batch)
            pieces = []
            for start, size in ((end - 8, 2), (end - 6, 2), (end - 4, 3)):
                piece = text[start : start + size]
                batch = prefill_batch(0, piece, num_computed_tokens=start, num_logits=size)
                pieces.append(runner.execute_model(batch).copy())
            what = f"the last positions of {end}, in pieces against whole"
            check_close(expected[:-1], np.concatenate(pieces), info, what)
            last = runner.execute_model(decode_batch(text[-1:], [end - 1]))
            check_same(
                int(expected[-1].argmax()),
                int(last[0].argmax()),
                "the id after a full slot",
                "decoded",
            )

    def test_chunked_prefill_equals_whole(self) -> None:
        """A prompt computed in pieces of any size is the same prompt."""
        with closing(self._warm_runner()) as runner:
            prompt = self._prompt(runner, 23)
            expected = self._continue(runner, prompt)
            for size in (3, 4, 21):
                actual = self._continue(runner, prompt, chunk=size)
                check_same(
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
            check_same(expected, actual, "the text in a fresh slot", "in a used slot")

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
                check_logits(runner.execute_model(batch), len(draft), runner.info, "a draft")
                logits = runner.execute_model(decode_batch([token_ids[-1]], [start]))
                token_ids.append(int(logits[0].argmax()))
            check_same(expected, token_ids, "the text", "with a wrong draft tried at each id")

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
            longest = runner.info.max_model_len - self.num_new_tokens
            moved, kept = self._prompt(runner, longest), self._prompt(runner, 7)[::-1]
            expected = [self._continue(runner, kept), self._continue(runner, moved)]
            actual = [[self._first(runner, 0, kept)]]
            self._first(runner, 1, self._prompt(runner, 30)[::-1])
            actual.append([self._first(runner, 2, moved)])
            runner.move_slot(2, 1, len(moved))
            for i in range(len(expected[0]) - 1):
                batch = decode_batch([ids[-1] for ids in actual], [len(kept) + i, len(moved) + i])
                for row, token_id in enumerate(runner.execute_model(batch).argmax(axis=1).tolist()):
                    actual[row].append(token_id)
            check_same(expected[0], actual[0], "the text of slot 0", "after a move beside it")
            check_same(expected[1], actual[1], "the text before the move", "after the move")

    def test_loaded_blocks_have_the_bits_that_were_saved(self) -> None:
        """In any slot, after other texts; a runner that stores no blocks has nothing to show."""
        with closing(self._warm_runner()) as runner:
            if not runner.info.num_cache_blocks:
                return
            if not isinstance(runner, BlockStore):
                raise ContractViolation("info.num_cache_blocks is for a BlockStore")
            if runner.info.num_cache_blocks < 6:
                raise ContractViolation("make_runner must give 6 cache blocks or none")
            size = runner.info.cache_block_size
            texts = [self._prompt(runner, 2 * size + 5), self._prompt(runner, 2 * size + 3)[::-1]]
            ids = [[4, 1], [0, 5]]
            expected = []
            for slot, text in enumerate(texts):
                runner.execute_model(prefill_batch(slot, text[: 2 * size], num_logits=0))
                rest = prefill_batch(slot, text[2 * size :], num_computed_tokens=2 * size)
                expected.append(runner.execute_model(rest).copy())
            runner.save_blocks(0, 0, ids[0])
            runner.save_blocks(1, 0, ids[1][:1])
            runner.save_blocks(1, size, ids[1][1:])
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
            check_same(made[1], made[0], "what two calls make", "in one call")

    def test_candidates_are_what_the_logits_say(self) -> None:
        """Of prompts and of rows, with masks and without; if the runner brings any."""
        with closing(self._warm_runner()) as runner:
            if not runner.info.max_candidates:
                return
            texts = [self._prompt(runner, 9), self._prompt(runner, 12)[::-1]]
            for slot, text in enumerate(texts):
                check_candidates_of(runner, prefill_batch(slot, text), "a prompt")
            rows = decode_batch([3, 1], [len(text) for text in texts])
            check_candidates_of(runner, rows, "a decode")

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
            check_same(expected, actual, "the text before a failed step", "after it")

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
            check_same(expected, actual, "the text alone", "after a neighbour was aborted")

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

    def _ids(self, runner: ModelRunner, length: int) -> list[int]:
        return [(3 + 11 * i) % runner.info.vocab_size for i in range(length)]

    def _prompt(self, runner: ModelRunner, length: int) -> list[int]:
        """Ids whose last came before: a model that copies goes on with what followed then."""
        token_ids = self._ids(runner, length)
        token_ids[-1] = token_ids[max(0, length - 1 - self.num_new_tokens)]
        return token_ids

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
