"""Time to first token of a long prompt that an earlier one shares, with it cached and without.

Run `python -m bench.prefix_cache [MODEL_DIR] [--shared 2000] [--own 20]`: one engine over the model
(the built-in one by default), prompts of random ids, one at a time. Cold and warm prompts
alternate, so that a machine that gets slower or faster meanwhile hurts both; medians. What HTTP,
template and tokenizer add is in `bench.core_cost`.
"""

import argparse
import asyncio
import random
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

from provider_core import ConfigurationError, ModelRunner, ModelSpec, hookspecs
from provider_core.catalog import complete_spec
from provider_core.engine import LLMEngine
from provider_core.plugins import make_plugin_manager
from provider_core.settings import Settings
from provider_core.types import EngineOutput, GenerationRequest, SamplingParams

ROUNDS = 5
STARTER = Path(__file__).parents[1] / "plugins/provider_starter/model"


async def load_engine(model_dir: Path, *, max_model_len: int, prefix_cache_mib: int) -> LLMEngine:
    """The engine as the server makes it.

    Raises:
        ConfigurationError: No plugin loads the folder as a model runner.
    """
    spec = ModelSpec(
        id="bench",
        source=str(model_dir),
        max_model_len=max_model_len,
        max_num_seqs=2,
        prefix_cache_mib=prefix_cache_mib,
    )
    spec = complete_spec(spec, model_dir)
    runner = make_plugin_manager(Settings()).first(
        hookspecs.load_model, model=spec, model_dir=model_dir, report=lambda _: None
    )
    if not isinstance(runner, ModelRunner):
        raise ConfigurationError(f"no plugin loads {model_dir} as a model runner")
    runner.warm_up()
    return LLMEngine(runner, prefill_chunk_tokens=512)


async def first_token(
    engine: LLMEngine, name: str, prompt: Sequence[int], salt: str
) -> tuple[float, int]:
    """Seconds to the first token of one prompt, and how many of its tokens were cached."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[tuple[float, int]] = loop.create_future()
    finished = asyncio.Event()

    def on_output(output: EngineOutput) -> None:
        if output.error is not None and not done.done():
            done.set_exception(output.error)
        if output.token_ids and not done.done():
            done.set_result((time.perf_counter() - started_s, output.num_cached_tokens))
        if output.finish_reason is not None:
            finished.set()

    sampling = SamplingParams(max_tokens=2, temperature=0.0, ignore_eos=True)
    request = GenerationRequest(
        request_id=name, prompt_token_ids=tuple(prompt), sampling=sampling, cache_salt=salt
    )
    started_s = time.perf_counter()
    engine.submit(request, on_output)
    result = await done
    await finished.wait()  # the prompt is stored by then
    return result


async def measure(model_dir: Path, *, num_shared: int, num_own: int) -> None:
    """Run and print."""
    length = num_shared + num_own + 8
    engine = await load_engine(model_dir, max_model_len=length, prefix_cache_mib=1024)
    try:
        vocab_size = engine.info.vocab_size
        rng = random.Random(1)  # noqa: S311 - a fixed seed is the point
        shared = [rng.randrange(vocab_size) for _ in range(num_shared)]
        cold_s: list[float] = []
        warm_s: list[float] = []
        num_cached = 0
        for i in range(ROUNDS):
            for salt, times in ((f"cold-{i}", cold_s), ("warm", warm_s)):
                own = [rng.randrange(vocab_size) for _ in range(num_own)]
                seconds, num_cached = await first_token(
                    engine, f"{salt}-{i}", [*shared, *own], salt
                )
                times.append(seconds)
        cold, warm = statistics.median(cold_s), statistics.median(warm_s[1:])  # the first fills it
        print(f"{num_shared} shared tokens and {num_own} own, {num_cached} of them cached")
        print(f"time to first token: cold {cold * 1e3:.0f} ms, warm {warm * 1e3:.1f} ms")
        print(f"ratio: {cold / warm:.1f}")
    finally:
        await engine.close()


def main() -> None:
    """Read the arguments and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model_dir", type=Path, nargs="?", default=STARTER)
    parser.add_argument("--shared", type=int, default=2000)
    parser.add_argument("--own", type=int, default=20)
    arguments = parser.parse_args()
    asyncio.run(measure(arguments.model_dir, num_shared=arguments.shared, num_own=arguments.own))


if __name__ == "__main__":
    main()
