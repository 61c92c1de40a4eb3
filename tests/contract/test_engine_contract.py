"""The core's engine fulfils the contract, and engines with mistakes do not."""

import asyncio
import threading
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import pytest

from provider_core.engine import LLMEngine
from provider_core.errors import EngineDead
from provider_core.interfaces import Engine, EngineLoad, RunnerInfo
from provider_core.testing import ContractViolation, EngineContract, ScriptedRunner
from provider_core.types import EngineOutput, GenerationRequest, SamplingParams


def _make_engine(kind: Callable[..., LLMEngine] = LLMEngine) -> LLMEngine:
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


class _KnowsNoEnd(LLMEngine):
    def submit(self, request: GenerationRequest, on_output: Callable[[EngineOutput], None]) -> None:
        """Drop the model's own ends."""
        super().submit(replace(request, eos_token_ids=frozenset()), on_output)


class _AlwaysEnds(LLMEngine):
    def submit(self, request: GenerationRequest, on_output: Callable[[EngineOutput], None]) -> None:
        """End at them, wanted or not."""
        sampling = replace(request.sampling, ignore_eos=False)
        super().submit(replace(request, sampling=sampling), on_output)


class _MakesAtLeastOne(LLMEngine):
    def submit(self, request: GenerationRequest, on_output: Callable[[EngineOutput], None]) -> None:
        """Look at the limit behind each token."""
        sampling = replace(request.sampling, max_tokens=max(1, request.sampling.max_tokens))
        super().submit(replace(request, sampling=sampling), on_output)


class _CallsFromAnotherThread(LLMEngine):
    def submit(self, request: GenerationRequest, on_output: Callable[[EngineOutput], None]) -> None:
        """Hand outputs on where they are made."""

        def elsewhere(output: EngineOutput) -> None:
            thread = threading.Thread(target=on_output, args=(output,))
            thread.start()
            thread.join()

        super().submit(request, elsewhere)


class _IsAlwaysWell(LLMEngine):
    def check_health(self) -> None:
        """Say nothing."""

    def submit(self, request: GenerationRequest, on_output: Callable[[EngineOutput], None]) -> None:
        """Refuse what comes too late all the same."""
        LLMEngine.check_health(self)
        super().submit(request, on_output)


def _ignoring(name: str) -> Callable[..., LLMEngine]:
    """An engine that claims a parameter, and serves as if nobody had said it."""
    neutral = {field.name: field.default for field in fields(SamplingParams)}

    class Ignoring(LLMEngine):
        def submit(
            self, request: GenerationRequest, on_output: Callable[[EngineOutput], None]
        ) -> None:
            """Forget it."""
            if name == "grammar":
                request = replace(request, grammar=None)
            else:
                changed: dict[str, Any] = {name: neutral[name]}
                request = replace(request, sampling=replace(request.sampling, **changed))
            super().submit(request, on_output)

    return Ignoring


IGNORED = {
    "frequency_penalty": "with frequency_penalty 2 an id .* is made .* times",
    "grammar": "with a grammar that allows only id",
    "logit_bias": "with logit_bias 100 for id",
    "min_p": "with min_p=1 the ids are",
    "min_tokens": "with min_tokens=5 the ids are",
    "prompt_logprobs": r"with prompt_logprobs=1 they are of \[\]",
    "top_k": "with top_k=1 the ids are",
    "top_p": "with top_p=1e-06 the ids are",
}

MISTAKES: list[tuple[Callable[..., LLMEngine], str, str]] = [
    (_NamesWhatIsNone, "test_info_is_possible", "unsupported_params names telepathy"),
    (_RunsOneMoreBeside, "test_batched_equals_alone", "the greedy text of prompt 1 in a batch is"),
    (_RunsOneMoreBeside, "test_staggered_admission_equals_alone", "admitted while others ran"),
    (_EndsTwice, "test_seed_repeats", "an output came after the last one"),
    (_IgnoresSeeds, "test_seed_repeats", "the seeded text of prompt 0 in a batch is"),
    (_MakesOneTooMany, "test_token_limit_and_stop_tokens_end_a_sequence", "made 13 ids"),
    (_ForgetsStopTokens, "test_token_limit_and_stop_tokens_end_a_sequence", "with stop token"),
    (_KnowsNoEnd, "test_the_models_own_end_ends_a_sequence", "with eos id .* the ids, reason and"),
    (_AlwaysEnds, "test_the_models_own_end_ends_a_sequence", "with ignore_eos the ids are"),
    (_MakesAtLeastOne, "test_no_tokens_are_made_where_none_are_wanted", "max_tokens=0 made"),
    *(
        (_ignoring(name), "test_claimed_parameters_are_heeded", says)
        for name, says in IGNORED.items()
    ),
    (_CallsFromAnotherThread, "test_seed_repeats", "an output came on another thread"),
    (
        _KeepsWhatEnded,
        "test_abort_ends_a_sequence_and_frees_its_place",
        "every sequence ended, and the load is",
    ),
    (_IgnoresAborts, "test_abort_in_the_turn_of_submission", "aborted at once ended with"),
    (_HasAllTheTime, "test_a_deadline_ends_a_sequence", "not with DeadlineExceeded"),
    (_MixesLogprobsUp, "test_logprobs_are_one_for_each_id", "log probabilities are of"),
    (_TakesTooMuch, "test_a_refused_sequence_hurts_no_other", "a prompt of 129 tokens ended with"),
    (_IsAlwaysWell, "test_close_is_idempotent_and_ends_everything", "says that it can serve"),
    (_ServesAfterClose, "test_close_is_idempotent_and_ends_everything", "took a request"),
]
"""What an engine does wrong, the test that is there for it, and what that says."""


@pytest.mark.parametrize(("kind", "test", "says"), MISTAKES)
def test_a_careless_engine_violates_the_contract(
    kind: Callable[..., LLMEngine], test: str, says: str
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
