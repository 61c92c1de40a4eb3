"""A core over a runner that stores blocks, for tests of prompts that begin alike."""

from collections.abc import Sequence
from typing import Any

from provider_core.engine.core import EngineCore
from provider_core.engine.sequence import make_sequence
from provider_core.testing import Recorder, ScriptedRunner
from provider_core.types import EngineOutput, GenerationRequest, SamplingParams
from tests.unit.engine.manual_clock import ManualClock

BLOCK = 4


class Bench:
    """A core over a runner that stores blocks; counts what was computed."""

    def __init__(self, runner: ScriptedRunner | None = None, *, chunk: int = 64) -> None:
        self.runner = runner or make_runner()
        self.core = EngineCore(
            self.runner, prefill_chunk_tokens=chunk, max_kv_tokens=100_000, clock=ManualClock()
        )
        self.recorders: dict[str, Recorder] = {}

    def add(
        self,
        name: str,
        prompt: Sequence[int],
        *,
        salt: str = "",
        **params: Any,  # whatever SamplingParams takes
    ) -> None:
        """Submit a sequence of four greedy tokens, unless the parameters say otherwise."""
        params = {"max_tokens": 4, "temperature": 0.0} | params
        request = GenerationRequest(
            request_id=name,
            prompt_token_ids=tuple(prompt),
            sampling=SamplingParams(**params),
            cache_salt=salt,
        )
        recorder = self.recorders[name] = Recorder(name)
        self.core.add(make_sequence(request, recorder, max_model_len=256))

    def step(self) -> None:
        """Run one step and deliver what it made."""
        self.core.step()
        self.deliver()

    def deliver(self) -> None:
        """Call the callbacks."""
        for on_output, output in self.core.take_outputs()[0]:
            on_output(output)

    def run(self, name: str, prompt: Sequence[int], **options: Any) -> list[EngineOutput]:
        """Run one sequence alone to its end."""
        self.add(name, prompt, **options)
        self.finish()
        return self.recorders[name].outputs

    def finish(self) -> None:
        """Step until nothing is left."""
        while self.core.scheduler.has_work:
            self.step()

    def num_cached(self, name: str) -> int:
        """What a sequence's outputs say."""
        return sum(output.num_cached_tokens for output in self.recorders[name].outputs)


def make_runner(num_blocks: int = 32, **options: Any) -> ScriptedRunner:
    """A runner with small blocks."""
    return ScriptedRunner(
        max_num_seqs=4,
        max_model_len=256,
        vocab_size=64,
        num_cache_blocks=num_blocks,
        cache_block_size=BLOCK,
        **options,
    )


def alone(prompt: Sequence[int], **params: Any) -> list[int]:
    """The ids that a prompt makes where nothing is stored."""
    bench = Bench(make_runner(0))
    bench.run("alone", prompt, **params)
    return bench.recorders["alone"].token_ids
