"""What the engine costs beside the model, in microseconds per token by batch size.

Run `python -m bench.engine_step`. A step is schedule, sample, update and collect, as `LLMEngine`'s
thread does it, with the time inside the runner taken off; deliver is the hand-over to a running
event loop and the calls of the outputs' callbacks there. Lowest of several rounds, since anything
else the machine does only adds.
"""

import argparse
import asyncio
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from provider_core.engine.core import EngineCore
from provider_core.engine.sequence import make_sequence
from provider_core.interfaces import Batch, RunnerInfo
from provider_core.testing import ScriptedRunner
from provider_core.types import EngineOutput, GenerationRequest, SamplingParams

CASES: dict[str, SamplingParams] = {
    "greedy": SamplingParams(max_tokens=1, temperature=0.0),
    "sampled": SamplingParams(max_tokens=1),
    "top_p": SamplingParams(max_tokens=1, temperature=0.7, top_p=0.9),
    "top_k": SamplingParams(max_tokens=1, top_k=40),
    "penalties": SamplingParams(max_tokens=1, temperature=0.0, frequency_penalty=0.5),
    "logprobs": SamplingParams(max_tokens=1, temperature=0.0, logprobs=5),
}


class TimedRunner:
    """A runner whose own time is known, so that it can be taken off."""

    def __init__(self, runner: ScriptedRunner) -> None:
        self._runner = runner
        self.spent_s = 0.0

    @property
    def info(self) -> RunnerInfo:
        """The runner's."""
        return self._runner.info

    def warm_up(self) -> None:
        """Nothing to warm."""

    def execute_model(self, batch: Batch) -> npt.NDArray[np.float32]:
        """Run, and add the time."""
        started_s = time.perf_counter()
        logits = self._runner.execute_model(batch)
        self.spent_s += time.perf_counter() - started_s
        return logits

    def move_slot(self, source: int, target: int, num_tokens: int) -> None:
        """Pass on."""
        self._runner.move_slot(source, target, num_tokens)

    def close(self) -> None:
        """Pass on."""
        self._runner.close()


def step_cost_us(
    params: SamplingParams, *, num_rows: int, num_steps: int, vocab_size: int
) -> float:
    """Microseconds per token of a step without its runner and without delivery."""
    runner = TimedRunner(
        ScriptedRunner(
            max_num_seqs=num_rows,
            max_model_len=num_steps + 16,
            vocab_size=vocab_size,
            num_distributions=17,
        )
    )
    core = EngineCore(runner, prefill_chunk_tokens=1_000_000, max_kv_tokens=10**9, clock=time)
    for i in range(num_rows):
        request = GenerationRequest(
            request_id=str(i),
            prompt_token_ids=(1, 2, i),
            sampling=replace(params, max_tokens=num_steps),
            eos_token_ids=frozenset({vocab_size}),
        )
        core.add(make_sequence(request, _ignore, max_model_len=num_steps + 16))
    core.step()  # the prefills
    core.step()
    core.take_outputs()
    runner.spent_s = 0.0
    started_s = time.perf_counter()
    for _ in range(num_steps - 3):
        core.step()
        core.take_outputs()
    total_s = time.perf_counter() - started_s
    return (total_s - runner.spent_s) / ((num_steps - 3) * num_rows) * 1e6


async def deliver_cost_us(*, num_rows: int, num_steps: int) -> float:
    """Microseconds per token of the hand-over to the loop and the callbacks."""
    loop = asyncio.get_running_loop()
    outputs: list[tuple[Callable[[EngineOutput], None], EngineOutput]] = [
        (_ignore, EngineOutput((1,)))
    ] * num_rows
    done = loop.create_future()

    def deliver(step: int) -> None:
        for on_output, output in outputs:
            on_output(output)
        if step + 1 == num_steps:
            done.set_result(None)
        else:
            loop.call_soon_threadsafe(deliver, step + 1)

    started_s = time.perf_counter()
    loop.call_soon_threadsafe(deliver, 0)
    await done
    return (time.perf_counter() - started_s) / (num_steps * num_rows) * 1e6


def _ignore(output: EngineOutput) -> None:
    del output


def main() -> None:
    """Print one line per case and batch size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--vocab-size", type=int, default=256)
    parser.add_argument("--rows", type=int, nargs="*", default=[1, 8, 32])
    arguments = parser.parse_args()
    print(f"microseconds per token, vocabulary {arguments.vocab_size}")
    print(f"{'case':<12}" + "".join(f"{rows:>10} rows" for rows in arguments.rows))
    for name, params in CASES.items():
        costs = [
            min(
                step_cost_us(
                    params,
                    num_rows=rows,
                    num_steps=arguments.steps,
                    vocab_size=arguments.vocab_size,
                )
                for _ in range(arguments.rounds)
            )
            for rows in arguments.rows
        ]
        print(f"{name:<12}" + "".join(f"{cost:>15.2f}" for cost in costs))
    costs = [
        min(
            asyncio.run(deliver_cost_us(num_rows=rows, num_steps=arguments.steps))
            for _ in range(arguments.rounds)
        )
        for rows in arguments.rows
    ]
    print(f"{'deliver':<12}" + "".join(f"{cost:>15.2f}" for cost in costs))


if __name__ == "__main__":
    main()
