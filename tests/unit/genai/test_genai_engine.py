"""What an engine does when its runtime dies."""

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from provider_core import EngineDead, SamplingParams
from provider_core.testing import Recorder, submit
from provider_genai import engine as engine_module
from provider_genai.engine import GenaiEngine
from provider_genai.folder import GenaiFolder, read_folder
from provider_genai.runtime import Runtime
from provider_genai.settings import GenaiSettings
from tests.genai_folders import write_genai_folder


class _DyingRuntime(Runtime):
    """The real one, which dies in the first step that ends a sequence, or as told.

    Attributes:
        is_armed: Whether it dies; not while it warms up.
        takes_nothing: Whether it fails at a sequence before it knows of it.
    """

    is_armed = False
    takes_nothing = False

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._engine = _DyingEngine(self._engine, self)

    def add(self, *args: Any) -> None:
        """Take a sequence in, or fail as no runtime should."""
        if self.takes_nothing:
            raise MemoryError
        super().add(*args)


class _DyingEngine:
    """onnxruntime-genai's engine, but for the last event of its last step."""

    def __init__(self, engine: Any, runtime: _DyingRuntime) -> None:
        self._engine = engine
        self._runtime = runtime

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def run(self, buffer: Any) -> Iterator[Any]:
        """One step; an event of no request says that the engine has failed."""
        for event in self._engine.run(buffer):
            ends = event.flags & self._runtime._genai.EngineEventFlags.TURN_FINISHED
            yield event
            if ends and self._runtime.is_armed:
                yield SimpleNamespace(request=None)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> GenaiFolder:
    """A tiny model."""
    path = tmp_path_factory.mktemp("genai") / "tiny"
    return read_folder(write_genai_folder(path, vocab_size=96))


def _run(folder: GenaiFolder, max_tokens: tuple[int, ...]) -> list[Recorder]:
    """Submit a sequence for each limit, and wait for their ends."""

    async def main() -> list[Recorder]:
        engine = GenaiEngine(folder, GenaiSettings(), max_num_seqs=4, max_model_len=64)
        _DyingRuntime.is_armed = True
        recorders = [
            submit(
                engine,
                str(limit),
                [3, 4, 5],
                SamplingParams(max_tokens=limit, temperature=0.0, ignore_eos=True),
            )
            for limit in max_tokens
        ]
        for recorder in recorders:
            await recorder.result(timeout_s=10)
        with pytest.raises(EngineDead):
            engine.check_health()
        assert engine.load().num_running == 0
        await engine.close()
        return recorders

    return asyncio.run(main())


@pytest.mark.parametrize(
    "changes",
    [{"top_k": 1, "top_p": 0.9, "temperature": 0.7}, {"top_k": 200, "temperature": 0.001}],
)
def test_what_the_runtime_finds_contradictory_is_served(
    folder: GenaiFolder, changes: dict[str, Any]
) -> None:
    """It refuses a temperature beside the likeliest alone, and more candidates than there are."""

    async def main() -> list[Recorder]:
        engine = GenaiEngine(folder, GenaiSettings(), max_num_seqs=4, max_model_len=64)
        greedy = SamplingParams(max_tokens=4, temperature=0.0, ignore_eos=True)
        recorders = [
            submit(engine, name, [3, 4, 5], sampling)
            for name, sampling in (("greedy", greedy), ("other", replace(greedy, **changes)))
        ]
        for recorder in recorders:
            await recorder.result(timeout_s=10)
        await engine.close()
        return recorders

    greedy, other = asyncio.run(main())

    assert len(greedy.token_ids) == 4
    assert other.token_ids == greedy.token_ids


@pytest.fixture
def dying(monkeypatch: pytest.MonkeyPatch) -> type[_DyingRuntime]:
    """The engine's runtime is one that dies."""
    monkeypatch.setattr(engine_module, "Runtime", _DyingRuntime)
    monkeypatch.setattr(_DyingRuntime, "is_armed", False)
    return _DyingRuntime


@pytest.mark.usefixtures("dying")
def test_what_a_step_made_before_it_died_is_delivered(folder: GenaiFolder) -> None:
    """Who ended in it has ended well, and who had not ends with the engine's error."""
    short, long = _run(folder, (2, 20))

    assert short.outputs[-1].finish_reason == "length"
    assert len(short.token_ids) == 2
    assert long.outputs[-1].finish_reason == "error"
    assert isinstance(long.outputs[-1].error, EngineDead)


def test_a_sequence_that_kills_the_engine_ends_too(
    folder: GenaiFolder, dying: type[_DyingRuntime], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even one that the runtime never heard of."""
    warm_up = engine_module._warm_up

    def then_take_nothing(runtime: Runtime) -> None:
        warm_up(runtime)
        monkeypatch.setattr(dying, "takes_nothing", True)

    monkeypatch.setattr(engine_module, "_warm_up", then_take_nothing)

    recorders = _run(folder, (2, 3))

    assert [one.outputs[-1].finish_reason for one in recorders] == ["error", "error"]
