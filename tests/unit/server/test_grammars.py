"""Compiling for requests: once, in bounded time, and kept in bounded memory."""

import asyncio
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from threading import Event
from typing import Any

import numpy as np
import pytest

from provider_core import Constraint, Grammar, ModelSpec, hookimpl
from provider_core.errors import InvalidRequest, Overloaded, UnsupportedParameter
from provider_core.plugins import PluginManager
from provider_core.server import grammars
from provider_core.server.defaults import TextDefaults
from provider_core.server.grammars import GrammarCompiler
from provider_core.server.models import ServedModel
from provider_core.settings import LimitSettings, Settings
from tests.serving import saying, serving
from tests.unit.text.byte_tokenizer import END, ByteTokenizer
from tests.unit.text.writing import reads

NOT_NEEDED: Any = None  # what serves a model besides its tokenizer


class Compiling:
    """A plugin that compiles everything, and counts."""

    def __init__(
        self,
        answer: Callable[[Constraint], Any] = lambda _: object(),  # no grammar is started here
    ) -> None:
        self.num_compiled = 0
        self._answer = answer

    @hookimpl
    def compile_grammar(self, constraint: Constraint) -> Grammar | None:
        """Answer."""
        self.num_compiled += 1
        grammar: Grammar | None = self._answer(constraint)
        return grammar


def _model(model_id: str = "m") -> ServedModel:
    return ServedModel(
        spec=ModelSpec(id=model_id, source="x", eos_token_ids=frozenset({END})),
        engine=NOT_NEEDED,
        tokenizer=ByteTokenizer(),
        chat_template=None,
        decode_token=NOT_NEEDED,
    )


def _constraint(source: str = "a", param: str = "response_format") -> Constraint:
    return Constraint(kind="regex", source=source, param=param)


def _compiler(plugin: object, **limits: Any) -> GrammarCompiler:  # whatever LimitSettings takes
    plugins = PluginManager()
    plugins.register(plugin, "compiling")
    return GrammarCompiler(plugins, LimitSettings(**limits))


@pytest.fixture
def gate() -> Iterator[Event]:
    """What a compilation waits for; opened at the end, so that no thread is left behind."""
    event = Event()
    yield event
    event.set()


async def test_a_constraint_is_compiled_once_a_model() -> None:
    """And again when the model's tokenizer is another."""
    plugin = Compiling()
    compiler = _compiler(plugin)
    model = _model()
    first = await compiler.compile(model, _constraint())
    assert await compiler.compile(model, _constraint()) is first
    assert plugin.num_compiled == 1
    assert await compiler.compile(_model("other"), _constraint()) is not first
    assert await compiler.compile(_model(), _constraint()) is not first
    assert plugin.num_compiled == 3
    compiler.close()


async def test_requests_that_come_together_share_one_compilation(gate: Event) -> None:
    """Whoever leaves takes nothing from the others."""
    plugin = Compiling(lambda _: gate.wait(60) and object())
    compiler = _compiler(plugin)
    model = _model()
    waiting = [asyncio.create_task(compiler.compile(model, _constraint())) for _ in range(5)]
    await asyncio.sleep(0)
    waiting.pop().cancel()
    gate.set()
    grammars = await asyncio.gather(*waiting)
    assert plugin.num_compiled == 1
    assert len(set(map(id, grammars))) == 1
    compiler.close()


async def test_s5_what_is_kept_is_bounded_in_bytes() -> None:
    """The least recently used go."""
    plugin = Compiling()
    compiler = _compiler(plugin, grammar_cache_mib=1)
    model = _model()
    first = await compiler.compile(model, _constraint("0"))
    for i in range(1, 100):
        await compiler.compile(model, _constraint(str(i)))
        assert await compiler.compile(model, _constraint("0")) is first
    assert plugin.num_compiled == 100
    await compiler.compile(model, _constraint("1"))
    assert plugin.num_compiled == 101
    await compiler.compile(model, _constraint("2" * 60_000))
    await compiler.compile(model, _constraint("0"))
    assert plugin.num_compiled == 103
    compiler.close()


async def test_s5_grammars_are_counted_as_they_grow() -> None:
    """Long strings need a state for each character; they stay with the grammar."""
    compiler = _compiler(TextDefaults(Settings()), grammar_cache_mib=1)
    model = _model()
    first = await compiler.compile(model, _constraint("[ab]{9000}"))
    assert await compiler.compile(model, _constraint("[ab]{9000}")) is first
    matcher, mask = first.start(), np.zeros(9, dtype=np.int32)
    for _ in range(300):
        matcher.fill_bitmask(mask)
        assert matcher.accept(ord("a"))
    await compiler.compile(model, _constraint("a"))
    assert await compiler.compile(model, _constraint("[ab]{9000}")) is not first
    compiler.close()


async def test_what_takes_too_long_is_the_requests_fault(gate: Event) -> None:
    """Once the vocabulary was read, for which there is more time."""
    plugin = Compiling(lambda constraint: constraint.source == "a" or gate.wait(60))
    compiler = _compiler(plugin, grammar_timeout_s=0.05)
    model = _model()
    await compiler.compile(model, _constraint("a"))
    slow = [compiler.compile(model, _constraint(f"{i}", f"param {i}")) for i in range(3)]
    *began, waited = await asyncio.gather(*slow, return_exceptions=True)
    for i, error in enumerate(began):
        assert isinstance(error, InvalidRequest)
        assert (error.code, error.param) == ("schema_too_complex", f"param {i}")
    assert isinstance(waited, Overloaded)  # both threads were taken
    compiler.close()


async def test_writing_a_constraint_may_take_no_longer(gate: Event) -> None:
    """It is Python, and grows with what a client sends."""
    compiler = _compiler(Compiling(), grammar_timeout_s=0.05)
    assert await compiler.write(lambda: "a", "tools") == "a"
    with pytest.raises(InvalidRequest) as caught:
        await compiler.write(lambda: gate.wait(60), "tools")
    assert (caught.value.code, caught.value.param) == ("schema_too_complex", "tools")
    compiler.close()


async def test_a_model_that_replaces_another_does_not_wait_for_its_grammars(gate: Event) -> None:
    """They are of another tokenizer."""
    plugin = Compiling(lambda _: plugin.num_compiled > 1 or gate.wait(60))
    compiler = _compiler(plugin)
    old = asyncio.create_task(compiler.compile(_model(), _constraint()))
    await _until(lambda: plugin.num_compiled == 1)
    assert await compiler.compile(_model(), _constraint()) is not None
    assert not old.done()
    gate.set()
    await old
    compiler.close()


def test_a_compilation_without_an_end_does_not_keep_the_process() -> None:
    """Nobody can stop its thread."""
    code = (
        "from threading import Event\n"
        "from provider_core.server.daemon_executor import DaemonExecutor\n"
        "begun = Event()\n"
        "executor = DaemonExecutor(2, 'x')\n"
        "executor.submit(lambda: (begun.set(), Event().wait()))\n"
        "begun.wait()\n"
        "executor.close()\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def _lark(source: str) -> Constraint:
    return Constraint(kind="lark", source=source, param="guided_grammar")


def test_grammars_of_clients_are_served_only_where_they_are_allowed() -> None:
    """Nothing bounds what an ambiguous one costs the others."""
    with pytest.raises(UnsupportedParameter) as caught:
        _compiler(Compiling()).check_allowed(_lark('start: "a"'))
    assert caught.value.param == "guided_grammar"
    _compiler(Compiling()).check_allowed(_constraint())


@pytest.mark.parametrize(
    "source", ['start: "<[1]>" | /<\\/?b>/ | "\\\\" | "\\"<"', 'start: %json {"const": "<"}']
)
def test_a_clients_grammar_may_spell_anything(source: str) -> None:
    """In quotes, or in expressions."""
    _compiler(Compiling(), client_grammars=True).check_allowed(_lark(source))


@pytest.mark.parametrize(
    "source",
    [
        "start: <[0]>",
        "start: <|im_end|>",
        'start: "a" <[^1]> "b"',
        'start: "a\\\\" <[0]> "b"',
        "a" * 70_000,
    ],
    ids=["id", "name", "range", "quotes", "long"],
)
def test_a_clients_grammar_names_no_control_tokens_and_is_not_long(source: str) -> None:
    """They are never part of a constrained text."""
    with pytest.raises(InvalidRequest) as caught:
        _compiler(Compiling(), client_grammars=True).check_allowed(_lark(source))
    assert caught.value.param == "guided_grammar"


async def test_errors_are_told_and_not_kept() -> None:
    """The same constraint may come from another field."""

    def refuse(constraint: Constraint) -> None:
        raise InvalidRequest("no", param=constraint.param, code="invalid_schema")

    plugin = Compiling(refuse)
    compiler = _compiler(plugin)
    for param in ("one", "two"):
        with pytest.raises(InvalidRequest) as caught:
            await compiler.compile(_model(), _constraint(param=param))
        assert caught.value.param == param
    assert plugin.num_compiled == 2
    compiler.close()


async def test_s9_a_panic_is_told_as_any_failure_of_our_own() -> None:
    """Rust's are no `Exception`, and nothing would answer them; the two threads live on."""

    def panic(constraint: Constraint) -> None:
        raise BaseException(constraint.source)  # noqa: TRY002 - as pyo3 does

    compiler = _compiler(Compiling(panic))
    for source in "abc":
        with pytest.raises(RuntimeError) as caught:
            await compiler.compile(_model(), _constraint(source))
        assert str(caught.value.__cause__) == source
    compiler.close()


async def test_a_constraint_that_nobody_enforces_is_unsupported() -> None:
    """If all plugins decline."""
    compiler = _compiler(Compiling(lambda _: None))
    with pytest.raises(UnsupportedParameter):
        await compiler.compile(_model(), _constraint())
    compiler.close()


async def test_the_cores_own_answer_enforces() -> None:
    """With any tokenizer."""
    compiler = _compiler(TextDefaults(Settings()))
    grammar = await compiler.compile(_model(), _constraint("a+b"))
    assert reads(grammar, list(b"aab"), end=END)
    assert not reads(grammar, list(b"aa"), end=END)
    compiler.close()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Idle is whoever is so for a moment."""
    monkeypatch.setattr(grammars, "_IDLE_S", 0.001)


class Listing:
    """Models as `prepare_when_idle` sees them."""

    def __init__(self, *models: ServedModel) -> None:
        self.in_memory = list(models)

    def __iter__(self) -> Iterator[ServedModel]:
        return iter(list(self.in_memory))


async def _until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 - a thread makes it true
        await asyncio.sleep(0.001)


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
    compiler = _compiler(plugin)
    models: Any = Listing(_model("a"), _model("b"))
    task = asyncio.create_task(compiler.prepare_when_idle(models))
    await _until(lambda: plugin.num_compiled == 2)
    models.in_memory.append(_model("c"))
    await _until(lambda: plugin.num_compiled == 3)
    await compiler.prepare(models.in_memory[0])
    await compiler.compile(models.in_memory[2], Constraint(kind="json_object"))  # it was kept
    assert asked == ["json_object"] * 3
    await _cancelled(task)
    compiler.close()


@pytest.mark.usefixtures("quick")
async def test_nothing_is_prepared_beside_a_request() -> None:
    """Reading a vocabulary would hold up every stream."""
    plugin = Compiling()
    compiler = _compiler(plugin)
    busy, other = _model("busy"), _model("other")
    models: Any = Listing(busy, other)
    with busy.held():
        task = asyncio.create_task(compiler.prepare_when_idle(models))
        for _ in range(20):
            await asyncio.sleep(0.001)  # a look of the task's
        assert plugin.num_compiled == 0
    await _until(lambda: plugin.num_compiled == 2)
    await _cancelled(task)
    compiler.close()


async def _cancelled(task: asyncio.Task[None]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def test_a_server_that_ends_compiles_no_more() -> None:
    """Its threads are let go."""
    async with serving(saying("Hello!")) as served:
        compiler = served.server.dispatcher.planner.grammars
        model = served.server.models.find_ready("test-model")
        await compiler.compile(model, _constraint())
    with pytest.raises(RuntimeError):
        await compiler.compile(model, _constraint("b"))
