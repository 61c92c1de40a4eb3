"""How long a step beside a decode lasts, on a machine where calls and loads have a price, too."""

from collections.abc import Sequence

import pytest

from provider_core.engine.core import EngineCore
from provider_core.engine.sequence import make_sequence
from provider_core.errors import StepFailed
from provider_core.interfaces import Batch
from provider_core.testing import Recorder, ScriptedRunner
from provider_core.types import GenerationRequest, SamplingParams
from tests.unit.engine.manual_clock import ManualClock

CALL_S, TOKEN_S, BLOCK_S = 0.012, 1 / 1400, 0.00016
TARGET_S = 0.15
KNOWN = [i % 250 for i in range(2000)]
LOAD_S = len(KNOWN) / 16 * BLOCK_S


class Machine:
    """A core on a machine with a price for everything; it has computed and stored `KNOWN`."""

    def __init__(self) -> None:
        self.clock = clock = ManualClock()
        self.failing = False

        def execute(batch: Batch) -> None:
            if self.failing and batch.phase == "prefill":
                raise StepFailed("at once")
            clock.now_s += CALL_S
            if batch.phase == "prefill":
                clock.now_s += batch.token_ids.size * TOKEN_S

        class Runner(ScriptedRunner):
            def load_blocks(self, slot: int, block_ids: Sequence[int]) -> None:
                """Take a while."""
                clock.now_s += len(block_ids) * BLOCK_S
                super().load_blocks(slot, block_ids)

        runner = Runner(
            max_num_seqs=32, max_model_len=2200, num_cache_blocks=1000, on_execute=execute
        )
        self.core = EngineCore(
            runner,
            prefill_chunk_tokens=512,
            target_itl_s=TARGET_S,
            max_kv_tokens=100_000,
            clock=clock,
        )
        self.add("known", [*KNOWN, 9, 9, 9])
        while self.core.scheduler.has_work:
            self.core.step()
        self.add("talking", [5] * 1000, max_tokens=1000)
        while not self.core.scheduler.rows:
            self.core.step()
        self.step_s()

    def add(self, name: str, prompt: Sequence[int], max_tokens: int = 1) -> None:
        """Submit a sequence."""
        request = GenerationRequest(
            request_id=name,
            prompt_token_ids=tuple(prompt),
            sampling=SamplingParams(max_tokens=max_tokens, temperature=0.0),
        )
        self.core.add(make_sequence(request, Recorder(name), max_model_len=2200))

    def step_s(self) -> float:
        """Run a step and say how long it lasted."""
        began_s = self.clock.now_s
        self.core.step()
        return self.clock.now_s - began_s

    @property
    def num_granted(self) -> int:
        """Prompt tokens of a step with a decode."""
        return self.core.scheduler.budget.num_tokens(is_decoding=True)


@pytest.mark.parametrize("beginning", [KNOWN, []], ids=["cached", "short"])
def test_many_prompts_with_little_to_compute_keep_the_target(beginning: list[int]) -> None:
    """A step ends when its time is used up, at most one load and one call later."""
    machine = Machine()
    num_granted = machine.num_granted
    for i in range(28):
        machine.add(str(i), [*beginning, i, 1, 2, 3])
    steps_s = []
    while machine.core.scheduler.has_prompts:
        steps_s.append(machine.step_s())
    assert max(steps_s) <= TARGET_S + LOAD_S + CALL_S
    assert min(steps_s[:-1]) > 0.7 * TARGET_S
    assert machine.num_granted >= 0.9 * num_granted  # a token costs what it cost before


def test_prompts_that_fail_teach_nothing() -> None:
    """Not that prompts cost no time."""
    machine = Machine()
    machine.failing = True
    num_granted = machine.num_granted
    machine.add("bad", range(200))
    machine.core.step()
    assert machine.num_granted == num_granted
