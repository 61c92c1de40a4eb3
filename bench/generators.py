"""Generators without a server: ours, onnxruntime-genai's, OpenVINO-genai's continuous batching.

``python -m bench.generators provider MODEL_DIR``, ``... genai MODEL_DIR`` and ``... openvino
MODEL_DIR`` make 64 tokens behind prompts of 128 random ids, greedy, 1, 8 and 32 at a time on two
threads, and print output tokens per second; numbers behind the folder replace 1, 8 and 32. The
peers run in environments of their own that have them installed. genai's batch is static: all start
together. OpenVINO's pipeline and our engine get a new request whenever one ends.
"""

import asyncio
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

PROMPT, OUTPUT, THREADS = 128, 64, 2
BATCHES = (1, 8, 32)
ROUNDS = 2


def random_prompts(count: int) -> np.ndarray[tuple[int, int], np.dtype[np.int64]]:
    """Ids `[count, PROMPT]` that all tokenizers know."""
    return np.random.default_rng().integers(300, 30_000, (count, PROMPT))


def run_provider(model_dir: str, batch: int) -> float:
    """Tokens per second over three times as many requests as run at once."""
    from provider_core import ModelSpec
    from provider_onnxruntime import load_model
    from provider_onnxruntime.runner import OnnxRuntimeRunner

    options = {"intra_op_num_threads": THREADS}
    spec = ModelSpec(id="bench", source="", max_model_len=2048, prefix_cache_mib=0, options=options)
    runner = load_model(spec, Path(model_dir))
    if not isinstance(runner, OnnxRuntimeRunner):
        raise SystemExit(f"{model_dir} holds no decoder")
    runner.warm_up()
    runner.wait_until_mixed()
    return asyncio.run(_generate(runner, batch))


async def _generate(runner: Any, batch: int) -> float:
    from provider_core import SamplingParams
    from provider_core.engine import LLMEngine
    from provider_core.testing import submit

    engine = LLMEngine(runner)
    sampling = SamplingParams(max_tokens=OUTPUT, temperature=0.0, ignore_eos=True)
    prompts = enumerate(random_prompts(3 * batch).tolist())

    async def ask_in_turn() -> None:
        for number, ids in prompts:
            await submit(engine, str(number), ids, sampling).finished.wait()

    began = time.perf_counter()
    await asyncio.gather(*(ask_in_turn() for _ in range(batch)))
    duration_s = time.perf_counter() - began
    await engine.close()
    return 3 * batch * OUTPUT / duration_s


def run_genai(model_dir: str, batch: int) -> float:
    """Tokens per second of one static batch."""
    import onnxruntime_genai as genai

    model = _cached(genai.Model, model_dir)
    params = genai.GeneratorParams(model)
    length = PROMPT + OUTPUT
    params.set_search_options(
        max_length=length, min_length=length, batch_size=batch, do_sample=False
    )
    generator = genai.Generator(model, params)
    began = time.perf_counter()
    generator.append_tokens(random_prompts(batch).astype(np.int32))
    for _ in range(OUTPUT):
        generator.generate_next_token()
    return batch * OUTPUT / (time.perf_counter() - began)


def run_openvino(model_dir: str, batch: int) -> float:
    """Tokens per second over three times as many requests as run at once."""
    import openvino
    import openvino_genai as genai

    def make_pipeline(folder: str) -> Any:  # the package has no types
        scheduler = genai.SchedulerConfig()
        scheduler.cache_size, scheduler.max_num_seqs = 2, max(BATCHES)
        scheduler.enable_prefix_caching = False
        threads = {"INFERENCE_NUM_THREADS": THREADS}
        return genai.ContinuousBatchingPipeline(folder, scheduler, "CPU", threads)

    pipeline = _cached(make_pipeline, model_dir)
    config = genai.GenerationConfig(max_new_tokens=OUTPUT, ignore_eos=True, do_sample=False)
    prompts = enumerate(random_prompts(3 * batch))
    running: list[Any] = []
    began = time.perf_counter()
    while True:
        while len(running) < batch and (item := next(prompts, None)) is not None:
            number, ids = item
            running.append(pipeline.add_request(number, openvino.Tensor(ids[None]), config))
        if not running:
            return 3 * batch * OUTPUT / (time.perf_counter() - began)
        pipeline.step()
        running = [r for r in running if r.get_status() == genai.GenerationStatus.RUNNING]


_KEPT: dict[str, Any] = {}


def _cached(make: Any, model_dir: str) -> Any:
    if model_dir not in _KEPT:
        _KEPT[model_dir] = make(model_dir)
    return _KEPT[model_dir]


def main() -> None:
    """Measure and print the best of a few rounds."""
    run = {"provider": run_provider, "genai": run_genai, "openvino": run_openvino}[sys.argv[1]]
    for batch in [int(number) for number in sys.argv[3:]] or BATCHES:
        run(sys.argv[2], batch)
        best = max(run(sys.argv[2], batch) for _ in range(ROUNDS))
        print(f"{sys.argv[1]}, {batch} at a time: {best:.1f} tokens/s", flush=True)


if __name__ == "__main__":
    main()
