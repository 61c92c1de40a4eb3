"""A core over a scripted runner, for tests that step it."""

from collections.abc import Callable
from typing import Any

from provider_core.engine.core import EngineCore
from provider_core.engine.sequence import make_sequence
from provider_core.testing import ScriptedRunner
from provider_core.types import EngineOutput, GenerationRequest, Grammar, SamplingParams
from tests.unit.engine.manual_clock import ManualClock

EOS = 0


class Bench:
    """A core over a scripted runner, and what came out of it by request id."""

    def __init__(
        self,
        *,
        speculates: bool = False,
        make_runner: Callable[..., ScriptedRunner] = ScriptedRunner,
        **options: Any,  # whatever the runner takes
    ) -> None:
        options.setdefault("max_num_seqs", 4)
        options.setdefault("max_model_len", 64)
        self.runner = make_runner(**options)
        self.clock = ManualClock()
        self.core = EngineCore(
            self.runner,
            prefill_chunk_tokens=16,
            max_kv_tokens=10_000,
            speculates=speculates,
            clock=self.clock,
        )
        self.outputs: dict[str, list[EngineOutput]] = {}

    def add(
        self,
        name: str,
        *prompt: int,
        deadline_s: float | None = None,
        grammar: Grammar | None = None,
        **params: Any,  # whatever SamplingParams takes
    ) -> None:
        """Submit one sequence, greedy and of 5 tokens unless the parameters say otherwise."""
        params = {"max_tokens": 5, "temperature": 0.0} | params
        request = GenerationRequest(
            request_id=name,
            prompt_token_ids=prompt or (1, 2, 3),
            sampling=SamplingParams(**params),
            eos_token_ids=frozenset({EOS}),
            deadline_s=deadline_s,
            grammar=grammar,
        )
        outputs = self.outputs[name] = []
        self.core.add(make_sequence(request, outputs.append, max_model_len=64))

    def step(self, times: int = 1) -> None:
        """Run steps and deliver what they made."""
        for _ in range(times):
            self.core.step()
            self.deliver()

    def run(self) -> None:
        """Step until nothing is left."""
        while self.core.scheduler.has_work:
            self.step()

    def deliver(self) -> None:
        """Call the callbacks."""
        for on_output, output in self.core.take_outputs()[0]:
            on_output(output)

    def ids(self, name: str) -> list[int]:
        """Every id of a sequence."""
        return [token_id for output in self.outputs[name] for token_id in output.token_ids]

    def last(self, name: str) -> EngineOutput:
        """Its last output, after which nothing came."""
        assert [o.finish_reason is None for o in self.outputs[name]][:-1] == [True] * (
            len(self.outputs[name]) - 1
        )
        return self.outputs[name][-1]
