"""Vectors of images reach the runner at their places, however the prompt is cut."""

import numpy as np
import pytest

from provider_core.engine.engine import LLMEngine
from provider_core.interfaces import Batch
from provider_core.testing import Recorder, ScriptedRunner
from provider_core.types import GenerationRequest, SamplingParams

IMAGES = {3: np.arange(20, dtype=np.float32).reshape(10, 2), 20: np.full((4, 2), -1, np.float32)}


@pytest.mark.parametrize("chunk", [16, 512])
async def test_every_vector_arrives_once_at_its_place(chunk: int) -> None:
    """Over all pieces of a prompt; a decode has none."""
    seen: dict[int, list[float]] = {}

    def note(batch: Batch) -> None:
        assert batch.phase == "prefill" or not batch.embeddings
        for place, values in batch.embeddings:
            first = int(batch.num_computed_tokens[0]) + place
            for offset, vector in enumerate(values):
                assert first + offset not in seen
                seen[first + offset] = vector.tolist()

    engine = LLMEngine(ScriptedRunner(on_execute=note), prefill_chunk_tokens=chunk)
    request = GenerationRequest(
        request_id="r",
        prompt_token_ids=tuple(range(40)),
        sampling=SamplingParams(max_tokens=3),
        prompt_embeddings=tuple((start, each.data) for start, each in IMAGES.items()),
    )
    try:
        recorder = Recorder("r")
        engine.submit(request, recorder)
        await recorder.result()
    finally:
        await engine.close()
    expected = {
        start + offset: vector.tolist()
        for start, each in IMAGES.items()
        for offset, vector in enumerate(each)
    }
    assert seen == expected
