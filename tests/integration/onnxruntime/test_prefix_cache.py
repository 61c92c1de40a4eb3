"""With and without the prefix cache: the same logits to the last bit.

In every convention, and in every precision that is derived for a deterministic model.
"""

from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path
from time import monotonic

import numpy as np
import numpy.typing as npt
import pytest

from provider_core import Batch, ModelRunner, ModelSpec
from provider_core.engine.core import EngineCore
from provider_core.engine.sequence import make_sequence
from provider_core.interfaces import BlockStore
from provider_core.testing import Recorder
from provider_core.types import GenerationRequest, SamplingParams
from provider_export.export import export_decoder
from provider_onnxruntime import load_model
from tests.decoder_variants import GrowingTarget, write_variant
from tests.tiny_checkpoints import write_checkpoint

VOCAB_SIZE = 512
SHARED = np.random.default_rng(5).integers(0, VOCAB_SIZE, size=150).tolist()


class Clock:
    """The real one."""

    def time(self) -> float:
        """Unused."""
        return 0.0

    def monotonic(self) -> float:
        """Seconds that only grow."""
        return monotonic()


class Watched:
    """A runner that keeps copies of all logits that were asked for, last position only."""

    def __init__(self, runner: ModelRunner) -> None:
        self._runner = runner
        self.info = runner.info
        self.logits: list[npt.NDArray[np.float32]] = []

    def warm_up(self) -> None:
        """Was done."""

    def execute_model(self, batch: Batch) -> npt.NDArray[np.float32]:
        """Run, and keep."""
        logits = self._runner.execute_model(batch)
        if batch.num_logits:
            self.logits.append(logits[-1].copy())
        return logits

    def move_slot(self, source: int, target: int, num_tokens: int) -> None:
        """Pass on."""
        self._runner.move_slot(source, target, num_tokens)

    def save_blocks(self, slot: int, first_token: int, block_ids: Sequence[int]) -> None:
        """Pass on."""
        assert isinstance(self._runner, BlockStore)
        self._runner.save_blocks(slot, first_token, block_ids)

    def load_blocks(self, slot: int, block_ids: Sequence[int]) -> None:
        """Pass on."""
        assert isinstance(self._runner, BlockStore)
        self._runner.load_blocks(slot, block_ids)

    def close(self) -> None:
        """The fixture does."""


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A decoder of each convention with heads of 64: tiny matrices take other kernels."""
    root = tmp_path_factory.mktemp("wide")
    checkpoint = write_checkpoint(
        root / "checkpoint",
        vocab_size=VOCAB_SIZE,
        hidden_size=256,
        intermediate_size=768,
        head_dim=64,
    )
    export_decoder(checkpoint, root / "genai", target="cpu")
    export_decoder(checkpoint, root / "scatter", target="tensorrt")
    write_variant(checkpoint, root / "optimum", GrowingTarget)
    return {name: root / name for name in ("genai", "scatter", "optimum")}


@pytest.fixture(
    params=[
        *((convention, None) for convention in ("genai", "scatter", "optimum")),
        *(("genai", precision) for precision in ("int4", "int8", "hybrid")),
        ("optimum", "int8"),
    ],
    ids=str,
)
def runner(request: pytest.FixtureRequest, folders: dict[str, Path]) -> Iterator[ModelRunner]:
    """Four slots of 256 positions and a store of one MiB."""
    convention, precision = request.param
    spec = ModelSpec(
        id="wide",
        source="",
        max_num_seqs=4,
        max_model_len=256,
        prefix_cache_mib=1,
        precision=precision,
        deterministic=precision is not None,
    )
    runner = load_model(spec, folders[convention])
    assert isinstance(runner, ModelRunner)
    yield runner
    runner.close()


class Texts:
    """Runs prompts through one core, each alone."""

    def __init__(self, runner: ModelRunner) -> None:
        self._watched = Watched(runner)
        self._core = EngineCore(
            self._watched, prefill_chunk_tokens=512, max_kv_tokens=10_000, clock=Clock()
        )
        self._names = map(str, count())

    def run(
        self, prompt: Sequence[int], salt: str = ""
    ) -> tuple[int, list[int], list[npt.NDArray[np.float32]]]:
        """Cached tokens, the twelve ids that follow, and the logits of each."""
        recorder = Recorder(next(self._names))
        request = GenerationRequest(
            request_id=recorder.request_id,
            prompt_token_ids=tuple(prompt),
            sampling=SamplingParams(max_tokens=12, temperature=0.0),
            cache_salt=salt,
        )
        self._watched.logits.clear()
        self._core.add(make_sequence(request, recorder, max_model_len=256))
        while self._core.scheduler.has_work:
            self._core.step()
        for on_output, output in self._core.take_outputs()[0]:
            on_output(output)
        num_cached = sum(output.num_cached_tokens for output in recorder.outputs)
        return num_cached, recorder.token_ids, self._watched.logits[:]


@pytest.mark.parametrize("num_own", [2, 3, 40])
def test_a_hit_changes_not_one_bit(runner: ModelRunner, num_own: int) -> None:
    """Of the prompt's logits and of those of every token after it."""
    texts = Texts(runner)
    prompt = [*SHARED[:144], *range(num_own)]
    num_cached, expected_ids, expected = texts.run(prompt, salt="nobody else")
    assert num_cached == 0
    texts.run(SHARED)
    num_cached, ids, logits = texts.run(prompt)
    assert num_cached == 144
    assert ids == expected_ids
    np.testing.assert_array_equal(logits, expected)


def test_every_length_of_a_hit_changes_not_one_bit(runner: ModelRunner) -> None:
    """From one block to all of them."""
    texts = Texts(runner)
    texts.run(SHARED)
    for num_shared in (16, 33, 79, 128):
        prompt = [*SHARED[:num_shared], *range(9)]
        _, expected_ids, expected = texts.run(prompt, salt=str(num_shared))
        num_cached, ids, logits = texts.run(prompt)
        assert (num_cached, ids) == (num_shared // 16 * 16, expected_ids)
        np.testing.assert_array_equal(logits, expected)


def test_a_conversation_is_the_same_with_and_without(runner: ModelRunner) -> None:
    """Three turns, each on top of the last one's text; the store is too small for two tenants."""
    texts = Texts(runner)
    prompt = SHARED[:60]
    hits = []
    for turn in range(3):
        num_cached, ids, logits = texts.run(prompt, salt="talking")
        _, expected_ids, expected = texts.run(prompt, salt=f"fresh-{turn}")
        assert ids == expected_ids
        np.testing.assert_array_equal(logits, expected)
        hits.append(num_cached)
        prompt = [*prompt, *ids, 7, 8, 9]
    assert hits[0] == 0
    assert all(num_cached >= 48 for num_cached in hits[1:])


def test_memory_says_how_many_blocks_there_are(folders: dict[str, Path]) -> None:
    """None is none; a block is keys and values of 16 positions in every layer."""
    for mib, expected in ((0, 0), (1, 2**20 // (2 * 2 * 2 * 16 * 64 * 4))):
        spec = ModelSpec(
            id="wide", source="", max_num_seqs=2, max_model_len=64, prefix_cache_mib=mib
        )
        runner = load_model(spec, folders["scatter"])
        assert isinstance(runner, ModelRunner)
        assert runner.info.num_cache_blocks == expected
        runner.close()
