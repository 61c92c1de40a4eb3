"""What constrained decoding costs a step, beside the model, in microseconds per token.

Run `python -m bench.constrained_decoding --tokenizer FOLDER`, with a vocabulary of the size that
matters. The runner sleeps for as long as a model would run; meanwhile masks are made. `greedy` is
the step of rows without a grammar, `json` of rows whose model writes JSON that fits, `added` their
difference, and `forced` that of a model that wants random ids; `beside` is what one constrained row
adds to the step of all others together. All is processor time of the engine's thread, which a busy
machine disturbs least; `waited` is how long a step of constrained rows stood still until its masks
were there.
"""

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from provider_core.engine.core import EngineCore
from provider_core.engine.sequence import make_sequence
from provider_core.interfaces import Batch
from provider_core.testing import ScriptedRunner
from provider_core.text.grammar_compiler import GrammarFactory
from provider_core.text.tokenizer import load_tokenizer
from provider_core.types import Constraint, EngineOutput, GenerationRequest, Grammar, SamplingParams

STARTER = Path(__file__).parents[1] / "plugins/provider_starter/model"
EOS = 0
ITEM = '{"name": "The %dth of many names", "tags": ["red", "blue"], "size": %d.5}'
SCHEMA = {
    "type": "array",
    "minItems": 1000,
    "items": {
        "type": "object",
        "properties": {
            "name": {"type": "string", "maxLength": 60},
            "tags": {"type": "array", "items": {"enum": ["red", "green", "blue"]}},
            "size": {"type": "number"},
        },
        "required": ["name", "tags", "size"],
        "additionalProperties": False,
    },
}


class ClockedRunner(ScriptedRunner):
    """A runner whose own time is known, so that it can be taken off."""

    processor_s = 0.0
    wall_s = 0.0

    def execute_model(self, batch: Batch) -> npt.NDArray[np.float32]:
        """Run, and add the time."""
        processor_s, wall_s = time.thread_time(), time.perf_counter()
        logits = super().execute_model(batch)
        self.processor_s += time.thread_time() - processor_s
        self.wall_s += time.perf_counter() - wall_s
        return logits


class Cost(NamedTuple):
    """Median microseconds of a step beside its runner."""

    processor_us: float
    waited_us: float


def step_cost(
    grammars: list[Grammar | None],
    reply: Sequence[int],
    *,
    vocab_size: int,
    num_steps: int,
    step_time_s: float,
) -> Cost:
    """What a step of so many rows costs, of a model that wants to write the reply."""
    num_rows = len(grammars)
    runner = ClockedRunner(
        max_num_seqs=num_rows,
        max_model_len=num_steps + 16,
        vocab_size=vocab_size,
        num_distributions=7,
        step_time_s=step_time_s,
        reply=reply,
    )
    core = EngineCore(runner, prefill_chunk_tokens=1_000_000, max_kv_tokens=10**9, clock=time)
    for i, grammar in enumerate(grammars):
        request = GenerationRequest(
            request_id=str(i),
            prompt_token_ids=(1, 2, i),
            sampling=SamplingParams(max_tokens=num_steps + 2, temperature=0.0),
            eos_token_ids=frozenset({EOS}),
            grammar=grammar,
        )
        core.add(make_sequence(request, _ignore, max_model_len=num_steps + 16))
    core.step()  # the prefills
    costs = []
    for _ in range(num_steps - 3):
        runner.processor_s, runner.wall_s = 0.0, 0.0
        processor_s, wall_s = time.thread_time(), time.perf_counter()
        core.step()
        processor_s = time.thread_time() - processor_s - runner.processor_s
        wall_s = time.perf_counter() - wall_s - runner.wall_s
        costs.append((processor_s, wall_s - processor_s))
        core.take_outputs()
    core.masks.close()
    processor_us, waited_us = np.median(costs, axis=0) * 1e6
    return Cost(float(processor_us), float(waited_us))


def mask_times_us(grammar: Grammar, *, vocab_size: int, num_tokens: int) -> list[float]:
    """Microseconds of each mask of one text of random ids."""
    random = np.random.default_rng(0)
    mask = np.zeros(-(-vocab_size // 32), dtype=np.int32)
    matcher = grammar.start()
    times: list[float] = []
    while len(times) < num_tokens and not matcher.is_finished:
        started_s = time.perf_counter()
        matcher.fill_bitmask(mask)
        times.append((time.perf_counter() - started_s) * 1e6)
        allowed = np.flatnonzero(np.unpackbits(mask.view(np.uint8), bitorder="little"))
        matcher.accept(int(random.choice(allowed)))
    return times


def _ignore(output: EngineOutput) -> None:
    del output


def main() -> None:
    """Print what compiling, masks and steps cost."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokenizer", type=Path, default=STARTER, help="a model's folder")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--step-ms", type=float, default=5.0, help="how long the model runs")
    parser.add_argument("--rows", type=int, nargs="*", default=[1, 8, 32])
    arguments = parser.parse_args()
    tokenizer = load_tokenizer(arguments.tokenizer)
    vocab_size = tokenizer.vocab_size
    factory = GrammarFactory(tokenizer, frozenset({EOS}))
    constraint = Constraint(kind="json_schema", source=json.dumps(SCHEMA))
    started_s = time.perf_counter()
    grammar = factory.compile(constraint)
    first_s = time.perf_counter() - started_s
    started_s = time.perf_counter()
    factory.compile(constraint)
    compile_s = time.perf_counter() - started_s
    print(
        f"vocabulary of {vocab_size}: read in {first_s:.2f} s, then {compile_s * 1e3:.1f} ms each"
    )
    masks = mask_times_us(grammar, vocab_size=vocab_size, num_tokens=2000)
    median, high, highest = np.percentile(masks, [50, 99, 100])
    print(
        f"mask, on a thread of its own: {median:.0f} us, 99 of 100 below {high:.0f},"
        f" at most {highest:.0f}"
    )
    reply = tokenizer.encode(
        "[" + ", ".join(ITEM % (i, i) for i in range(arguments.steps)) + "]", allow_special=False
    )
    names = ("greedy", "json", "added", "forced", "beside", "waited")
    print(f"{'us per token':<14}" + "".join(f"{name:>10}" for name in names))
    for rows in arguments.rows:
        all_rows: list[Grammar | None] = [grammar] * rows
        no_rows: list[Grammar | None] = [None] * rows
        one_row: list[Grammar | None] = [grammar, *no_rows[1:]]
        cases = [
            (no_rows, reply),
            (all_rows, reply),
            (no_rows, []),
            (all_rows, []),
            (one_row, reply),
        ]
        greedy, json_rows, any_ids, forced, beside = (
            min(
                step_cost(
                    grammars,
                    wanted,
                    vocab_size=vocab_size,
                    num_steps=arguments.steps,
                    step_time_s=arguments.step_ms / 1e3,
                )
                for _ in range(arguments.rounds)
            )
            for grammars, wanted in cases
        )
        figures = (
            greedy.processor_us / rows,
            json_rows.processor_us / rows,
            (json_rows.processor_us - greedy.processor_us) / rows,
            (forced.processor_us - any_ids.processor_us) / rows,
            beside.processor_us - greedy.processor_us,
            json_rows.waited_us - greedy.waited_us,
        )
        label = f"{rows} rows"
        print(f"{label:<14}" + "".join(f"{figure:>10.1f}" for figure in figures))


if __name__ == "__main__":
    main()
