"""A core over a scripted runner, and what it asked of it, for tests of speculation."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from provider_core.engine.core import EngineCore
from provider_core.engine.sequence import make_sequence
from provider_core.interfaces import Batch
from provider_core.testing import ScriptedRunner
from provider_core.types import (
    EngineOutput,
    FinishReason,
    GenerationRequest,
    SamplingParams,
    TokenLogprobs,
)
from tests.unit.engine.manual_clock import ManualClock

EOS = 0
PROMPT = (1, 2, 3, 4, 5, 6, 7, 8, 9, 1, 2)
Corrupt = Callable[[Batch, npt.NDArray[np.float32]], npt.NDArray[np.float32]]


class Recorder:
    """Runs requests to their ends and keeps what came out and what the runner was asked."""

    def __init__(
        self,
        *,
        speculates: bool = True,
        max_num_seqs: int = 4,
        verify_margin: float | None = 0.02,
        **options: Any,
    ) -> None:
        self.batches: list[tuple[str, int, int]] = []  # phase, tokens, positions with logits
        self.furthest = 0  # position that was run, from 1
        self.runner = ScriptedRunner(
            max_num_seqs=max_num_seqs, max_model_len=64, on_execute=self._note, **options
        )
        self.runner.info = replace(self.runner.info, verify_margin=verify_margin)
        self.core = EngineCore(
            self.runner,
            prefill_chunk_tokens=16,
            max_kv_tokens=10_000,
            speculates=speculates,
            clock=ManualClock(),
        )
        self.outputs: dict[str, list[EngineOutput]] = {}

    def _note(self, batch: Batch) -> None:
        self.batches.append((batch.phase, batch.token_ids.size, batch.num_logits))
        end = int(batch.num_computed_tokens.max()) + batch.token_ids.shape[1]
        self.furthest = max(self.furthest, end)

    def add(self, name: str, prompt: tuple[int, ...] = PROMPT, **params: Any) -> None:
        """Submit one sequence, greedy unless the parameters say otherwise."""
        params = {"max_tokens": 30, "temperature": 0.0} | params
        request = GenerationRequest(
            request_id=name,
            prompt_token_ids=prompt,
            sampling=SamplingParams(**params),
            eos_token_ids=frozenset({EOS}),
        )
        self.outputs[name] = []
        self.core.add(make_sequence(request, self.outputs[name].append, max_model_len=64))

    def step(self) -> None:
        """Run one step and deliver."""
        self.core.step()
        for on_output, output in self.core.take_outputs()[0]:
            on_output(output)

    def run(self) -> None:
        """Step until nothing is left."""
        while self.core.scheduler.has_work:
            self.step()

    def ids(self, name: str = "a") -> list[int]:
        """Every id of a sequence."""
        return [token_id for output in self.outputs[name] for token_id in output.token_ids]

    def result(self, name: str = "a") -> tuple[list[int], FinishReason | None, int | None]:
        """Ids, why it ended, and the id that did."""
        last = self.outputs[name][-1]
        return self.ids(name), last.finish_reason, last.stop_token_id

    def logprobs(self, name: str = "a") -> list[TokenLogprobs]:
        """Of every id."""
        return [entry for output in self.outputs[name] for entry in output.logprobs]

    @property
    def num_verified(self) -> int:
        """Calls that verified a draft."""
        return sum(phase == "prefill" and logits > 1 for phase, _, logits in self.batches)


COPY = [3, 4, 5, 6, 7, 8, 9, 1, 2, 3, 20, 21, EOS]


def copying(**options: Any) -> Recorder:
    """A model that repeats its prompt and then says something else."""
    return Recorder(scripts={PROMPT: COPY}, **options)
