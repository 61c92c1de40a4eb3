"""What the compiler of grammars keeps, for how long, and what it does while nothing runs."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from typing import Any
from weakref import ref

import numpy as np
import pytest

from provider_core import Constraint
from provider_core.server import grammars
from provider_core.server.defaults import TextDefaults
from provider_core.server.grammars import GrammarCompiler
from provider_core.server.models import ServedModel
from provider_core.settings import Settings
from tests.unit.server.compiling import Compiling, make_compiler, make_model, regex, until


async def test_s5_what_is_kept_is_bounded_in_bytes() -> None:
    """The least recently used go."""
    plugin = Compiling()
    compiler = make_compiler(plugin, grammar_cache_mib=1)
    model = make_model()
    first = await compiler.compile(model, regex("0"))
    for i in range(1, 100):
        await compiler.compile(model, regex(str(i)))
        assert await compiler.compile(model, regex("0")) is first
    assert plugin.num_compiled == 100
    await compiler.compile(model, regex("1"))
    assert plugin.num_compiled == 101
    await compiler.compile(model, regex("2" * 60_000))
    await compiler.compile(model, regex("0"))
    assert plugin.num_compiled == 103
    compiler.close()


async def test_s5_grammars_are_counted_as_they_grow() -> None:
    """Long strings need a state for each character; they stay with the grammar."""
    compiler = make_compiler(TextDefaults(Settings()), grammar_cache_mib=1)
    model = make_model()
    first = await compiler.compile(model, regex("[ab]{9000}"))
    assert await compiler.compile(model, regex("[ab]{9000}")) is first
    matcher, mask = first.start(), np.zeros(9, dtype=np.int32)
    for _ in range(300):
        matcher.fill_bitmask(mask)
        assert matcher.accept(ord("a"))
    await compiler.compile(model, regex("a"))
    assert await compiler.compile(model, regex("[ab]{9000}")) is not first
    compiler.close()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Idle is whoever is so for a moment."""
    monkeypatch.setattr(grammars, "_IDLE_S", 0.001)


class Listing:
    """Models as `follow` sees them."""

    def __init__(self, *models: ServedModel) -> None:
        self.in_memory = list(models)

    def __iter__(self) -> Iterator[ServedModel]:
        return iter(list(self.in_memory))


class Growing:
    """A grammar that grows when the test says so, and counts who asks."""

    def __init__(self) -> None:
        self.size = 0
        self.num_asked = 0

    @property
    def num_grown_bytes(self) -> int:
        """What it has grown by."""
        self.num_asked += 1
        return self.size


async def looked() -> None:
    """Wait while whoever follows looks at its models, some times."""
    for _ in range(20):
        await asyncio.sleep(0.001)


@asynccontextmanager
async def following(compiler: GrammarCompiler, models: Any) -> AsyncIterator[None]:
    """Let it follow the models while the context is open, and close it."""
    task = asyncio.create_task(compiler.follow(models))
    yield
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    compiler.close()


@pytest.mark.usefixtures("quick")
async def test_models_are_prepared_once_while_nothing_runs() -> None:
    """Those that were loaded later, too, and whatever a plugin answers."""
    asked: list[str] = []

    def answer(constraint: Constraint) -> object:
        asked.append(constraint.kind)
        if len(asked) == 1:
            raise RuntimeError("a plugin may raise anything")
        return object()

    plugin = Compiling(answer)
    compiler = make_compiler(plugin)
    models = Listing(make_model("a"), make_model("b"))
    async with following(compiler, models):
        await until(lambda: plugin.num_compiled == 2)
        models.in_memory.append(make_model("c"))
        await until(lambda: plugin.num_compiled == 3)
        await compiler.prepare(models.in_memory[0])
        await compiler.compile(models.in_memory[2], Constraint(kind="json_object"))  # it was kept
    assert asked == ["json_object"] * 3


@pytest.mark.usefixtures("quick")
async def test_nothing_is_prepared_beside_a_request() -> None:
    """Reading a vocabulary would hold up every stream."""
    plugin = Compiling()
    compiler = make_compiler(plugin)
    busy, other = make_model("busy"), make_model("other")
    async with following(compiler, Listing(busy, other)):
        with busy.held():
            await looked()
            assert plugin.num_compiled == 0
        await until(lambda: plugin.num_compiled == 2)


@pytest.mark.usefixtures("quick")
async def test_s5_what_grows_in_use_goes_though_nothing_new_comes() -> None:
    """Not that a request which finds its grammar looks at each that is kept: a thousand, maybe."""
    compiler = make_compiler(Compiling(lambda _: Growing()))
    model = make_model()
    first: Any = await compiler.compile(model, regex("0"))
    second: Any = await compiler.compile(model, regex("1"))
    num_asked = first.num_asked + second.num_asked
    first.size = 2**30
    for _ in range(10):
        assert await compiler.compile(model, regex("1")) is second
    assert first.num_asked + second.num_asked == num_asked
    async with following(compiler, Listing(model)):
        await looked()
        assert await compiler.compile(model, regex("1")) is second
        assert await compiler.compile(model, regex("0")) is not first


@pytest.mark.usefixtures("quick")
async def test_what_was_compiled_for_a_model_goes_with_it() -> None:
    """Its vocabulary takes megabytes; those that stay keep theirs."""
    compiler = make_compiler(TextDefaults(Settings()))
    stays, goes = make_model("stays"), make_model("goes")
    kept = await compiler.compile(stays, regex())
    tokenizer, grammar = ref(goes.tokenizer), ref(await compiler.compile(goes, regex()))
    models = Listing(stays, goes)
    async with following(compiler, models):
        await looked()
        assert grammar() is not None
        models.in_memory.remove(goes)
        del goes
        await until(lambda: tokenizer() is None and grammar() is None)
        assert await compiler.compile(stays, regex()) is kept
