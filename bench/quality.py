"""What derived weights cost in quality: perplexity and task accuracy of the built-in model.

Run `python -m bench.quality [--n 50] [--out FILE]`; it prints a Markdown table. Every precision
answers the same held-out conversations, greedily, as `plugins/provider_starter/recipe/evaluate.py`
asks and judges them. So few slots are used that hybrid decodes in int4 throughout, after prompts in
int8; for perplexity, too, the prompt is one step, and the answers are steps of so many tokens.
"""

import argparse
import asyncio
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from provider_core import ConfigurationError, ModelRunner, ModelSpec
from provider_core.catalog import complete_spec
from provider_core.engine import LLMEngine
from provider_core.testing import prefill_batch
from provider_core.types import EngineOutput, GenerationRequest, SamplingParams
from provider_onnxruntime import load_model
from provider_starter.recipe.evaluate import accuracy, conversations
from provider_starter.recipe.mixture import SKILLS
from provider_starter.recipe.vocabulary import Encoder, load

STARTER = Path(__file__).parents[1] / "plugins/provider_starter/model"
STEP = 4  # tokens, the most that hybrid runs in int4 by default
VARIANTS: dict[str, tuple[str | None, dict[str, object]]] = {
    "as supplied (fp16)": (None, {}),
    "int8": ("int8", {}),
    "int4, blocks of 32": ("int4", {"int4_block_size": 32}),
    "int4, blocks of 128": ("int4", {"int4_block_size": 128}),
    "hybrid, blocks of 32": ("hybrid", {"int4_block_size": 32}),
    "hybrid, blocks of 128": ("hybrid", {"int4_block_size": 128}),
}


@dataclass(frozen=True, slots=True)
class Quality:
    """What one precision scored.

    Attributes:
        accuracy: Share of right answers by ability.
    """

    perplexity: float
    accuracy: dict[str, float]


def measure(precision: str | None, options: dict[str, object], n: int) -> Quality:
    """Load the built-in model in a precision and ask it `n` questions of each ability."""
    spec = ModelSpec(id="bench", source=str(STARTER), max_num_seqs=STEP, prefix_cache_mib=0)
    spec = replace(complete_spec(spec, STARTER), precision=precision, options=options)
    spec = replace(spec, max_model_len=2048)
    runner = load_model(spec, STARTER)
    if not isinstance(runner, ModelRunner):
        raise ConfigurationError(f"{STARTER} holds no decoder")
    runner.warm_up()
    perplexity = measure_perplexity(runner, max(1, n // 4))
    with asyncio.Runner() as loop:
        engine = loop.run(make_engine(runner))
        rows, _ = accuracy(lambda p, length: loop.run(generate(engine, p, length)), n)
        loop.run(engine.close())
    return Quality(perplexity, {skill: row.measured for skill, row in rows.items()})


async def make_engine(runner: ModelRunner) -> LLMEngine:
    """The engine as the server makes it, on the running loop."""
    return LLMEngine(runner, speculates=False)


async def generate(engine: LLMEngine, prompts: list[list[int]], length: int) -> list[list[int]]:
    """Greedy answers of up to `length` tokens, end marks included."""
    return await asyncio.gather(
        *(answer(engine, str(index), prompt, length) for index, prompt in enumerate(prompts))
    )


async def answer(engine: LLMEngine, name: str, prompt: list[int], length: int) -> list[int]:
    """The answer to one prompt."""
    ids: list[int] = []
    finished: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def on_output(output: EngineOutput) -> None:
        ids.extend(output.token_ids)
        if output.error is not None:
            finished.set_exception(output.error)
        elif output.finish_reason is not None:
            finished.set_result(None)

    request = GenerationRequest(
        request_id=name,
        prompt_token_ids=tuple(prompt),
        sampling=SamplingParams(max_tokens=length, temperature=0),
        eos_token_ids=frozenset({0, 2}),
    )
    engine.submit(request, on_output)
    await finished
    return ids


def measure_perplexity(runner: ModelRunner, n: int) -> float:
    """Of the assistant's tokens in `n` held-out conversations of each ability."""
    tokenizer = load()
    encoder = Encoder(tokenizer)
    total, count = 0.0, 0
    for skill in SKILLS:
        for talk in conversations(skill, n, tokenizer, held=True):
            ids, learned = encoder(talk)
            first = list(learned).index(True)
            for position, scores in steps(runner, ids, first):
                for offset, logits in enumerate(scores, start=position):
                    if offset < len(ids) and learned[offset]:
                        total += log_probability(logits, ids[offset])
                        count += 1
    return math.exp(-total / count)


def steps(
    runner: ModelRunner, ids: list[int], first: int
) -> Iterator[tuple[int, npt.NDArray[np.float32]]]:
    """Run the tokens before `first` at once and the rest a few at a time.

    Yields:
        The position that the first of the logits is about, and logits.
    """
    yield first, runner.execute_model(prefill_batch(0, ids[:first]))
    for start in range(first, len(ids), STEP):
        part = ids[start : start + STEP]
        yield (
            start + 1,
            runner.execute_model(
                prefill_batch(0, part, num_computed_tokens=start, num_logits=len(part))
            ),
        )


def log_probability(logits: npt.NDArray[np.float32], token_id: int) -> float:
    """Of one token, by the log-softmax."""
    shifted = logits.astype(np.float64) - logits.max()
    return float(shifted[token_id] - np.log(np.exp(shifted).sum()))


def table(results: dict[str, Quality]) -> str:
    """Precisions as columns, what was measured as rows."""
    lines = [
        "| | " + " | ".join(results) + " |",
        "|---" * (len(results) + 1) + "|",
        "| perplexity | " + " | ".join(f"{q.perplexity:.4f}" for q in results.values()) + " |",
    ]
    abilities = next(iter(results.values())).accuracy
    for ability in abilities:
        shares = (f"{quality.accuracy[ability]:.3f}" for quality in results.values())
        lines.append(f"| {ability} | " + " | ".join(shares) + " |")
    means = (sum(q.accuracy.values()) / len(q.accuracy) for q in results.values())
    lines.append("| mean of all | " + " | ".join(f"{mean:.3f}" for mean in means) + " |")
    return "\n".join(lines)


def main() -> None:
    """Measure every precision and print the table."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--n", type=int, default=50, help="conversations of each ability")
    parser.add_argument("--out", type=Path, help="also write the table to this file")
    arguments = parser.parse_args()
    results: dict[str, Quality] = {}
    for name, (precision, options) in VARIANTS.items():
        results[name] = measure(precision, options, arguments.n)
        print(f"{name}: perplexity {results[name].perplexity:.4f}", flush=True)
    print(table(results))
    if arguments.out is not None:
        arguments.out.write_text(table(results) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
