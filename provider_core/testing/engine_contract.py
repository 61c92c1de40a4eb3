"""`EngineContract`: what every `Engine` must do, as tests to inherit."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import fields, replace
from typing import ClassVar

from provider_core.errors import DeadlineExceeded, EngineDead, InvalidRequest
from provider_core.interfaces import Engine, RunnerInfo
from provider_core.testing.generation import ContractViolation, generate, submit, succeeded
from provider_core.testing.sampling_checks import SamplingProbe, check_claimed_sampling
from provider_core.types import SamplingParams

_PARAMS = {field.name for field in fields(SamplingParams)} - {"max_tokens"} | {"grammar"}
"""What an engine may leave out."""


class EngineContract:
    """Inherit, name the class `Test...`, and say how an engine is made.

    ::

        class TestMyEngine(EngineContract):
            def make_engine(self) -> Engine:
                return MyEngine(...)

    Every test makes an engine on an event loop of its own, and closes it. Prompts are short and
    made of any ids of the vocabulary. What `info.unsupported_params` names is not tested.

    Attributes:
        num_new_tokens: Ids each sequence makes.
        num_sequences: Sequences that run together; more than there are slots is best.
    """

    num_new_tokens: ClassVar[int] = 12
    num_sequences: ClassVar[int] = 11

    def make_engine(self) -> Engine:
        """A new engine. Called on a running event loop."""
        raise NotImplementedError

    def test_info_is_possible(self) -> None:
        """Facts that a server can work with."""
        self.run(self._check_info)

    def test_batched_equals_alone(self) -> None:
        """Greedy text does not depend on what runs beside it."""
        self.run(self._check_batched_equals_alone)

    def test_staggered_admission_equals_alone(self) -> None:
        """Sequences that enter while others run, and leave before them, make the same text."""
        self.run(self._check_staggered_admission)

    def test_seed_repeats(self) -> None:
        """The same seed makes the same text, alone and in a batch."""
        self.run(self._check_seed_repeats)

    def test_token_limit_and_stop_tokens_end_a_sequence(self) -> None:
        """`length` after `max_tokens` ids; `stop` at a stop token, which is the last id."""
        self.run(self._check_ends)

    def test_the_models_own_end_ends_a_sequence(self) -> None:
        """`stop` at an id of `eos_token_ids`, which is the last one; not if it is to be ignored."""
        self.run(self._check_eos)

    def test_no_tokens_are_made_where_none_are_wanted(self) -> None:
        """With `max_tokens` 0 a sequence ends with `length`, and has no ids."""
        self.run(self._check_no_tokens)

    def test_claimed_parameters_are_heeded(self) -> None:
        """What `info.unsupported_params` does not name has the effect it must have on any model."""
        self.run(self._check_claimed_sampling)

    def test_abort_ends_a_sequence_and_frees_its_place(self) -> None:
        """More sequences than places, aborted one by one as they start: the last one runs."""
        self.run(self._check_abort)

    def test_abort_in_the_turn_of_submission(self) -> None:
        """A client that leaves at once still gets exactly one last output."""
        self.run(self._check_abort_at_once)

    def test_a_deadline_ends_a_sequence(self) -> None:
        """With `DeadlineExceeded`, whatever was made before."""
        self.run(self._check_deadline)

    def test_logprobs_are_one_for_each_id(self) -> None:
        """In the order of the ids, at most 0, with the likeliest that were asked for."""
        self.run(self._check_logprobs)

    def test_a_refused_sequence_hurts_no_other(self) -> None:
        """A prompt that is too long is refused or ends with an error; its neighbour goes on."""
        self.run(self._check_refusal)

    def test_close_is_idempotent_and_ends_everything(self) -> None:
        """Open sequences end with `abort`; later requests are refused."""
        self.run(self._check_close)

    def run(
        self,
        check: Callable[[Engine], Awaitable[None]],
        make_engine: Callable[[], Engine] | None = None,
    ) -> None:
        """Run one check with a fresh engine, and close it."""

        async def main() -> None:
            engine = (make_engine or self.make_engine)()
            try:
                await check(engine)
            finally:
                await engine.close()

        asyncio.run(main())

    def prompts(self, engine: Engine) -> list[tuple[int, ...]]:
        """`num_sequences` different prompts of 1 to 40 ids, the same each time."""
        info = engine.info
        longest = max(1, min(40, info.max_model_len - self.num_new_tokens))
        return [
            tuple(
                (7 + 31 * i + 17 * j * (i + 1)) % info.vocab_size
                for j in range(1 + i * 7 % longest)
            )
            for i in range(self.num_sequences)
        ]

    def greedy(self) -> SamplingParams:
        """Parameters without chance that make `num_new_tokens` ids."""
        return SamplingParams(max_tokens=self.num_new_tokens, temperature=0.0, ignore_eos=True)

    async def alone(self, engine: Engine, sampling: SamplingParams) -> list[list[int]]:
        """The ids of each prompt when nothing else runs."""
        return [
            await generate(engine, f"alone-{i}", prompt, sampling)
            for i, prompt in enumerate(self.prompts(engine))
        ]

    async def _check_batched_equals_alone(self, engine: Engine) -> None:
        await self._compare_together(engine, self.greedy(), "greedy")

    async def _check_info(self, engine: Engine) -> None:
        check_info(engine.info)

    async def _check_seed_repeats(self, engine: Engine) -> None:
        if "seed" in engine.info.unsupported_params:
            return
        sampling = SamplingParams(max_tokens=self.num_new_tokens, seed=7, ignore_eos=True)
        await self._compare_together(engine, sampling, "seeded")

    async def _compare_together(self, engine: Engine, sampling: SamplingParams, kind: str) -> None:
        expected = await self.alone(engine, sampling)
        recorders = [
            submit(engine, f"together-{i}", prompt, sampling)
            for i, prompt in enumerate(self.prompts(engine))
        ]
        for i, recorder in enumerate(recorders):
            actual = succeeded(recorder, await recorder.result())
            if actual != expected[i]:
                raise ContractViolation(
                    f"the {kind} text of prompt {i} in a batch is {actual},"
                    f" and alone it is {expected[i]}"
                )

    async def _check_staggered_admission(self, engine: Engine) -> None:
        prompts = self.prompts(engine)
        lengths = [1 + (5 * i) % self.num_new_tokens for i in range(len(prompts))]
        expected = await self.alone(engine, self.greedy())
        recorders = []
        for i, prompt in enumerate(prompts):
            sampling = SamplingParams(max_tokens=lengths[i], temperature=0.0, ignore_eos=True)
            recorders.append(submit(engine, f"staggered-{i}", prompt, sampling))
            if i % 3 == 0:
                await recorders[i // 3].wait_for(recorders[i // 3].started, "never started")
        for i, recorder in enumerate(recorders):
            actual = succeeded(recorder, await recorder.result())
            if actual != expected[i][: lengths[i]]:
                raise ContractViolation(
                    f"prompt {i}, admitted while others ran, made {actual},"
                    f" and alone {expected[i][: lengths[i]]}"
                )

    async def _check_ends(self, engine: Engine) -> None:
        prompt = self.prompts(engine)[1]
        whole = submit(engine, "whole", prompt, self.greedy())
        last = await whole.result()
        if (len(whole.token_ids), last.finish_reason) != (self.num_new_tokens, "length"):
            raise ContractViolation(
                f"max_tokens={self.num_new_tokens} made {len(whole.token_ids)} ids"
                f" and ended with {last.finish_reason!r}, not 'length'"
            )
        stop_id = whole.token_ids[2]
        expected = whole.token_ids[: whole.token_ids.index(stop_id) + 1]
        sampling = SamplingParams(
            max_tokens=self.num_new_tokens, temperature=0.0, stop_token_ids=frozenset({stop_id})
        )
        stopped = submit(engine, "stopped", prompt, sampling)
        last = await stopped.result()
        seen = (stopped.token_ids, last.finish_reason, last.stop_token_id)
        if seen != (expected, "stop", stop_id):
            raise ContractViolation(
                f"with stop token {stop_id} the ids, reason and stop id are {seen},"
                f" not {(expected, 'stop', stop_id)}"
            )

    async def _check_eos(self, engine: Engine) -> None:
        prompt = self.prompts(engine)[1]
        whole = await generate(engine, "whole", prompt, self.greedy())
        eos = frozenset({whole[2]})
        expected = whole[: whole.index(whole[2]) + 1]
        sampling = replace(self.greedy(), ignore_eos=False)
        ended = submit(engine, "ended", prompt, sampling, eos_token_ids=eos)
        last = await ended.result()
        seen = (ended.token_ids, last.finish_reason, last.stop_token_id)
        if seen != (expected, "stop", whole[2]):
            raise ContractViolation(
                f"with eos id {whole[2]} the ids, reason and stop id are {seen},"
                f" not {(expected, 'stop', whole[2])}"
            )
        ignoring = submit(engine, "ignoring", prompt, self.greedy(), eos_token_ids=eos)
        actual = succeeded(ignoring, await ignoring.result())
        if actual != whole:
            raise ContractViolation(
                f"with ignore_eos the ids are {actual}, and without an end they are {whole}"
            )

    async def _check_no_tokens(self, engine: Engine) -> None:
        sampling = replace(self.greedy(), max_tokens=0)
        recorder = submit(engine, "none", self.prompts(engine)[1], sampling)
        last = await recorder.result()
        if recorder.token_ids or last.finish_reason != "length":
            raise ContractViolation(
                f"max_tokens=0 made {recorder.token_ids} and ended with {last.finish_reason!r}"
            )
        self.check_empty(engine)

    async def _check_claimed_sampling(self, engine: Engine) -> None:
        prompt, greedy = self.prompts(engine)[1], self.greedy()
        expected = await generate(engine, "likeliest", prompt, greedy)
        await check_claimed_sampling(SamplingProbe(engine, prompt, greedy, expected))

    async def _check_abort(self, engine: Engine) -> None:
        engine.abort("nobody")  # unknown ids are ignored
        info = engine.info
        prompt = self.prompts(engine)[0]
        endless = SamplingParams(
            max_tokens=info.max_model_len - len(prompt), temperature=0.0, ignore_eos=True
        )
        recorders = [
            submit(engine, f"endless-{i}", prompt, endless) for i in range(info.max_num_seqs)
        ]
        successor = submit(engine, "successor", prompt, self.greedy())
        for recorder in recorders:
            engine.abort(recorder.request_id)
            last = await recorder.result()
            if last.finish_reason not in {"abort", "length"}:
                raise ContractViolation(
                    f"an aborted sequence ended with {last.finish_reason!r}: {last.error!r}"
                )
        succeeded(successor, await successor.result())
        self.check_empty(engine)

    async def _check_abort_at_once(self, engine: Engine) -> None:
        prompt = self.prompts(engine)[0]
        reasons = []
        for i in range(5):
            recorder = submit(engine, f"gone-{i}", prompt, self.greedy())
            engine.abort(recorder.request_id)
            engine.abort(recorder.request_id)
            reasons.append((await recorder.result()).finish_reason)
        # One may have ended before it was aborted, if the loop's thread was held up in between.
        if "abort" not in reasons or set(reasons) - {"abort", "length"}:
            raise ContractViolation(f"sequences aborted at once ended with {reasons}")
        self.check_empty(engine)

    async def _check_deadline(self, engine: Engine) -> None:
        prompt = self.prompts(engine)[0]
        deadline_s = time.monotonic() - 1
        late = submit(engine, "late", prompt, self.greedy(), deadline_s=deadline_s)
        last = await late.result()
        if last.finish_reason != "error" or not isinstance(last.error, DeadlineExceeded):
            raise ContractViolation(
                f"past its deadline a sequence ended with {last.finish_reason!r}: {last.error!r},"
                " not with DeadlineExceeded"
            )
        self.check_empty(engine)

    async def _check_logprobs(self, engine: Engine) -> None:
        if "logprobs" in engine.info.unsupported_params:
            return
        sampling = replace(self.greedy(), logprobs=2)
        recorder = submit(engine, "logprobs", self.prompts(engine)[2], sampling)
        token_ids = succeeded(recorder, await recorder.result())
        entries = [entry for output in recorder.outputs for entry in output.logprobs]
        if [entry.token_id for entry in entries] != token_ids:
            raise ContractViolation(
                f"log probabilities are of {[entry.token_id for entry in entries]},"
                f" and the ids are {token_ids}"
            )
        for entry in entries:
            logprobs = [logprob for _, logprob in entry.top]
            is_ordered = logprobs == sorted(logprobs, reverse=True) and len(logprobs) == 2
            if not is_ordered or entry.logprob is None or entry.logprob > 0:
                raise ContractViolation(f"with logprobs=2 an id's entry is {entry}")

    async def _check_refusal(self, engine: Engine) -> None:
        prompt = self.prompts(engine)[0]
        expected = await generate(engine, "before", prompt, self.greedy())
        beside = submit(engine, "beside", prompt, self.greedy())
        too_long = prompt[:1] * (engine.info.max_model_len + 1)
        try:
            refused = submit(engine, "refused", too_long, self.greedy())
        except InvalidRequest:
            pass
        else:
            last = await refused.result()
            if last.finish_reason != "error":
                raise ContractViolation(
                    f"a prompt of {len(too_long)} tokens ended with {last.finish_reason!r}"
                )
        actual = succeeded(beside, await beside.result())
        if actual != expected:
            raise ContractViolation(
                f"beside a sequence that was refused the text is {actual}, and alone {expected}"
            )
        engine.check_health()
        self.check_empty(engine)

    async def _check_close(self, engine: Engine) -> None:
        prompt = self.prompts(engine)[0]
        sampling = SamplingParams(
            max_tokens=engine.info.max_model_len - len(prompt), temperature=0.0, ignore_eos=True
        )
        recorder = submit(engine, "open", prompt, sampling)
        engine.check_health()
        await engine.close()
        await engine.close()
        last = await recorder.result()
        if last.finish_reason not in {"abort", "length"}:
            raise ContractViolation(f"close ended a sequence with {last.finish_reason!r}")
        for call, complaint in (
            (engine.check_health, "a closed engine says that it can serve"),
            (
                lambda: submit(engine, "late", prompt, self.greedy()),
                "a closed engine took a request",
            ),
        ):
            try:
                call()
            except EngineDead:
                continue
            raise ContractViolation(complaint)

    def check_empty(self, engine: Engine) -> None:
        """After the last output of the last sequence nothing is left.

        Raises:
            ContractViolation: The load still counts something.
        """
        load = engine.load()
        if load.num_running or load.num_waiting or load.num_waiting_prompt_tokens:
            raise ContractViolation(f"every sequence ended, and the load is {load}")


def check_info(info: RunnerInfo) -> None:
    """Look for facts that cannot be.

    Raises:
        ContractViolation: A limit is none, nothing says what runs, or a name is no parameter's.
    """
    for name in ("max_num_seqs", "max_model_len", "vocab_size"):
        if getattr(info, name) < 1:
            raise ContractViolation(f"info.{name} is {getattr(info, name)}")
    if not 0 <= info.max_candidates <= info.vocab_size:
        raise ContractViolation(
            f"info.max_candidates is {info.max_candidates}, of {info.vocab_size} ids"
        )
    if not (info.backend and info.backend_version and info.device):
        raise ContractViolation(f"info does not say what runs, and where: {info}")
    unknown = info.unsupported_params - _PARAMS
    if unknown:
        raise ContractViolation(
            f"info.unsupported_params names {', '.join(sorted(unknown))}, which is none of"
            f" {', '.join(sorted(_PARAMS))}"
        )
