"""The core's engine fulfils the contract, and engines with mistakes do not."""

import asyncio
from collections.abc import Callable
from dataclasses import replace

import pytest

from provider_core.engine import LLMEngine
from provider_core.errors import EngineDead
from provider_core.interfaces import Engine, EngineLoad, RunnerInfo
from provider_core.testing import ContractViolation, EngineContract, ScriptedRunner
from provider_core.types import EngineOutput, GenerationRequest


def _make_engine(kind: type[LLMEngine] = LLMEngine) -> LLMEngine:
    return kind(ScriptedRunner(max_num_seqs=3, max_model_len=128), prefill_chunk_tokens=16)


class TestLLMEngine(EngineContract):
    """Three slots, and prompts longer than a chunk."""

    def make_engine(self) -> Engine:
        """The core's own."""
        return _make_engine()


class _IgnoresAborts(LLMEngine):
    def abort(self, request_id: str) -> None:
        """Let it run."""


class _EndsTwice(LLMEngine):
    def submit(self, request: GenerationRequest, on_output: Callable[[EngineOutput], None]) -> None:
        """Say the last thing twice."""

        def twice(output: EngineOutput) -> None:
            on_output(output)
            if output.finish_reason is not None:
                on_output(output)

        super().submit(request, twice)


class _KeepsWhatEnded(LLMEngine):
    def load(self) -> EngineLoad:
        """Count one that is gone."""
        return replace(super().load(), num_running=1)


class _IgnoresSeeds(LLMEngine):
    def submit(self, request: GenerationRequest, on_output: Callable[[EngineOutput], None]) -> None:
        """Draw a fresh one."""
        sampling = replace(request.sampling, seed=None)
        super().submit(replace(request, sampling=sampling), on_output)


class _MakesOneTooMany(LLMEngine):
    def submit(self, request: GenerationRequest, on_output: Callable[[EngineOutput], None]) -> None:
        """Take max_tokens for the last index."""
        sampling = replace(request.sampling, max_tokens=request.sampling.max_tokens + 1)
        super().submit(replace(request, sampling=sampling), on_output)


class _ForgetsStopTokens(LLMEngine):
    def submit(self, request: GenerationRequest, on_output: Callable[[EngineOutput], None]) -> None:
        """Drop them."""
        sampling = replace(request.sampling, stop_token_ids=frozenset())
        super().submit(replace(request, sampling=sampling), on_output)


class _ServesAfterClose(LLMEngine):
    def submit(self, request: GenerationRequest, on_output: Callable[[EngineOutput], None]) -> None:
        """Swallow what comes too late."""
        try:
            super().submit(request, on_output)
        except EngineDead:
            asyncio.get_running_loop().call_soon(on_output, EngineOutput((), "abort"))


class _NamesWhatIsNone(LLMEngine):
    @property
    def info(self) -> RunnerInfo:
        """Lack what nobody has."""
        return replace(super().info, unsupported_params=frozenset({"seed", "telepathy"}))


class _RunsOneMoreBeside(LLMEngine):
    """Lets the number of those that run into the text."""

    def submit(self, request: GenerationRequest, on_output: Callable[[EngineOutput], None]) -> None:
        """Change the prompt's last id."""
        beside = min(self.load().num_running + self.load().num_waiting, 1)
        *first, last = request.prompt_token_ids
        prompt = (*first, (last + beside) % self.info.vocab_size)
        super().submit(replace(request, prompt_token_ids=prompt), on_output)


class _HasAllTheTime(LLMEngine):
    def submit(self, request: GenerationRequest, on_output: Callable[[EngineOutput], None]) -> None:
        """Forget the deadline."""
        super().submit(replace(request, deadline_s=None), on_output)


class _MixesLogprobsUp(LLMEngine):
    def submit(self, request: GenerationRequest, on_output: Callable[[EngineOutput], None]) -> None:
        """Give those of another token."""

        def mixed(output: EngineOutput) -> None:
            entries = tuple(replace(one, token_id=one.token_id + 1) for one in output.logprobs)
            on_output(replace(output, logprobs=entries))

        super().submit(request, mixed)


class _TakesTooMuch(LLMEngine):
    def submit(self, request: GenerationRequest, on_output: Callable[[EngineOutput], None]) -> None:
        """Cut a prompt that does not fit."""
        prompt = request.prompt_token_ids[: self.info.max_model_len - 20]
        super().submit(replace(request, prompt_token_ids=prompt), on_output)


MISTAKES: list[tuple[type[LLMEngine], str, str]] = [
    (_NamesWhatIsNone, "test_info_is_possible", "unsupported_params names telepathy"),
    (_RunsOneMoreBeside, "test_batched_equals_alone", "the greedy text of prompt 1 in a batch is"),
    (_RunsOneMoreBeside, "test_staggered_admission_equals_alone", "admitted while others ran"),
    (_EndsTwice, "test_seed_repeats", "an output came after the last one"),
    (_IgnoresSeeds, "test_seed_repeats", "the seeded text of prompt 0 in a batch is"),
    (_MakesOneTooMany, "test_token_limit_and_stop_tokens_end_a_sequence", "made 13 ids"),
    (_ForgetsStopTokens, "test_token_limit_and_stop_tokens_end_a_sequence", "with stop token"),
    (
        _KeepsWhatEnded,
        "test_abort_ends_a_sequence_and_frees_its_place",
        "every sequence ended, and the load is",
    ),
    (_IgnoresAborts, "test_abort_in_the_turn_of_submission", "aborted at once ended with"),
    (_HasAllTheTime, "test_a_deadline_ends_a_sequence", "not with DeadlineExceeded"),
    (_MixesLogprobsUp, "test_logprobs_are_one_for_each_id", "log probabilities are of"),
    (_TakesTooMuch, "test_a_refused_sequence_hurts_no_other", "a prompt of 129 tokens ended with"),
    (_ServesAfterClose, "test_close_is_idempotent_and_ends_everything", "took a request"),
]
"""What an engine does wrong, the test that is there for it, and what that says."""


@pytest.mark.parametrize(("kind", "test", "says"), MISTAKES)
def test_a_careless_engine_violates_the_contract(
    kind: type[LLMEngine], test: str, says: str
) -> None:
    """The test meant for a mistake finds it, and says what it saw."""

    class Contract(EngineContract):
        def make_engine(self) -> Engine:
            return _make_engine(kind)

    with pytest.raises(ContractViolation, match=says):
        getattr(Contract(), test)()


def test_every_promise_can_be_broken() -> None:
    """A test that nothing fails is none."""
    promises = {name for name in vars(EngineContract) if name.startswith("test_")}

    assert promises == {test for _, test, _ in MISTAKES}
