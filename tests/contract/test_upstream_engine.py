"""An upstream that gives ids is an engine like any other."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import ClassVar

import pytest

from provider_core import Engine, ModelSpec
from provider_core.testing import EngineContract, ScriptedRunner
from provider_upstream import load_model
from tests.serving import VOCAB_SIZE, make_model_dir
from tests.vllm_wire import VllmWire, vllm_wire


def _make_wire() -> VllmWire:
    runner = ScriptedRunner(max_num_seqs=8, max_model_len=128, vocab_size=VOCAB_SIZE)
    return VllmWire(runner)


class TestUpstreamEngine(EngineContract):
    """Over HTTP, with three connections for eleven sequences."""

    model_dir: ClassVar[Path]
    url: ClassVar[str]

    @pytest.fixture(autouse=True, scope="class")
    @classmethod
    def _upstream(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
        cls.model_dir = make_model_dir(tmp_path_factory.mktemp("upstream") / "model")
        with vllm_wire(_make_wire) as cls.url:
            yield

    def make_engine(self) -> Engine:
        """As a server loads it, which takes a thread."""
        spec = ModelSpec(
            id="far",
            source="far",
            backend="upstream",
            max_num_seqs=3,
            max_model_len=2048,
            options={"base_url": self.url},
        )
        with ThreadPoolExecutor(1) as pool:
            engine = pool.submit(load_model, spec, self.model_dir).result()
        assert engine is not None
        return engine
