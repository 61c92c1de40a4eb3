"""The core's engine fulfils the contract, and engines with mistakes do not."""

import asyncio
from collections.abc import Callable
from dataclasses import replace

import pytest

from provider_core.engine import LLMEngine
from provider_core.errors import EngineDead
from provider_core.interfaces import Engine, EngineLoad
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


@pytest.mark.parametrize(
    ("kind", "test"),
    [
        (_IgnoresAborts, "test_abort_in_the_turn_of_submission"),
        (_EndsTwice, "test_seed_repeats"),
        (_KeepsWhatEnded, "test_abort_ends_a_sequence_and_frees_its_place"),
        (_IgnoresSeeds, "test_seed_repeats"),
        (_MakesOneTooMany, "test_token_limit_and_stop_tokens_end_a_sequence"),
        (_ForgetsStopTokens, "test_token_limit_and_stop_tokens_end_a_sequence"),
        (_ServesAfterClose, "test_close_is_idempotent_and_ends_everything"),
    ],
)
def test_a_careless_engine_violates_the_contract(kind: type[LLMEngine], test: str) -> None:
    """The test meant for a mistake finds it."""

    class Contract(EngineContract):
        def make_engine(self) -> Engine:
            return _make_engine(kind)

    with pytest.raises(ContractViolation):
        getattr(Contract(), test)()
