"""Compiling for requests: once, in bounded time, and kept in bounded memory."""

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from threading import Event

import pytest

from provider_core import Constraint
from provider_core.errors import InvalidRequest, Overloaded, UnsupportedParameter
from provider_core.server.defaults import TextDefaults
from provider_core.settings import Settings
from tests.serving import saying, serving
from tests.unit.server.compiling import Compiling, make_compiler, make_model, regex, until
from tests.unit.text.byte_tokenizer import END
from tests.unit.text.writing import reads


@pytest.fixture
def gate() -> Iterator[Event]:
    """What a compilation waits for; opened at the end, so that no thread is left behind."""
    event = Event()
    yield event
    event.set()


async def test_a_constraint_is_compiled_once_a_model() -> None:
    """And again when the model's tokenizer is another."""
    plugin = Compiling()
    compiler = make_compiler(plugin)
    model = make_model()
    first = await compiler.compile(model, regex())
    assert await compiler.compile(model, regex()) is first
    assert plugin.num_compiled == 1
    assert await compiler.compile(make_model("other"), regex()) is not first
    assert await compiler.compile(make_model(), regex()) is not first
    assert plugin.num_compiled == 3
    compiler.close()


async def test_requests_that_come_together_share_one_compilation(gate: Event) -> None:
    """Whoever leaves takes nothing from the others."""
    plugin = Compiling(lambda _: gate.wait(60) and object())
    compiler = make_compiler(plugin)
    model = make_model()
    waiting = [asyncio.create_task(compiler.compile(model, regex())) for _ in range(5)]
    await asyncio.sleep(0)
    waiting.pop().cancel()
    gate.set()
    grammars = await asyncio.gather(*waiting)
    assert plugin.num_compiled == 1
    assert len(set(map(id, grammars))) == 1
    compiler.close()


async def test_what_takes_too_long_is_the_requests_fault(gate: Event) -> None:
    """Once the vocabulary was read, for which there is more time."""
    plugin = Compiling(lambda constraint: constraint.source == "a" or gate.wait(60))
    compiler = make_compiler(plugin, grammar_timeout_s=0.05)
    model = make_model()
    await compiler.compile(model, regex("a"))
    slow = [compiler.compile(model, regex(f"{i}", f"param {i}")) for i in range(3)]
    *began, waited = await asyncio.gather(*slow, return_exceptions=True)
    for i, error in enumerate(began):
        assert isinstance(error, InvalidRequest)
        assert (error.code, error.param) == ("schema_too_complex", f"param {i}")
    assert isinstance(waited, Overloaded)  # both threads were taken
    compiler.close()


async def test_writing_a_constraint_may_take_no_longer(gate: Event) -> None:
    """It is Python, and grows with what a client sends."""
    compiler = make_compiler(Compiling(), grammar_timeout_s=0.05)
    assert await compiler.write(lambda: "a", "tools") == "a"
    with pytest.raises(InvalidRequest) as caught:
        await compiler.write(lambda: gate.wait(60), "tools")
    assert (caught.value.code, caught.value.param) == ("schema_too_complex", "tools")
    compiler.close()


async def test_a_model_that_replaces_another_does_not_wait_for_its_grammars(gate: Event) -> None:
    """They are of another tokenizer."""
    plugin = Compiling(lambda _: plugin.num_compiled > 1 or gate.wait(60))
    compiler = make_compiler(plugin)
    old = asyncio.create_task(compiler.compile(make_model(), regex()))
    await until(lambda: plugin.num_compiled == 1)
    assert await compiler.compile(make_model(), regex()) is not None
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
        make_compiler(Compiling()).check_allowed(_lark('start: "a"'))
    assert caught.value.param == "guided_grammar"
    make_compiler(Compiling()).check_allowed(regex())


@pytest.mark.parametrize(
    "source", ['start: "<[1]>" | /<\\/?b>/ | "\\\\" | "\\"<"', 'start: %json {"const": "<"}']
)
def test_a_clients_grammar_may_spell_anything(source: str) -> None:
    """In quotes, or in expressions."""
    make_compiler(Compiling(), client_grammars=True).check_allowed(_lark(source))


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
        make_compiler(Compiling(), client_grammars=True).check_allowed(_lark(source))
    assert caught.value.param == "guided_grammar"


async def test_errors_are_told_and_not_kept() -> None:
    """The same constraint may come from another field."""

    def refuse(constraint: Constraint) -> None:
        raise InvalidRequest("no", param=constraint.param, code="invalid_schema")

    plugin = Compiling(refuse)
    compiler = make_compiler(plugin)
    for param in ("one", "two"):
        with pytest.raises(InvalidRequest) as caught:
            await compiler.compile(make_model(), regex(param=param))
        assert caught.value.param == param
    assert plugin.num_compiled == 2
    compiler.close()


async def test_s9_a_panic_is_told_as_any_failure_of_our_own() -> None:
    """Rust's are no `Exception`, and nothing would answer them; the two threads live on."""

    def panic(constraint: Constraint) -> None:
        raise BaseException(constraint.source)  # noqa: TRY002 - as pyo3 does

    compiler = make_compiler(Compiling(panic))
    for source in "abc":
        with pytest.raises(RuntimeError) as caught:
            await compiler.compile(make_model(), regex(source))
        assert str(caught.value.__cause__) == source
    compiler.close()


async def test_a_constraint_that_nobody_enforces_is_unsupported() -> None:
    """If all plugins decline."""
    compiler = make_compiler(Compiling(lambda _: None))
    with pytest.raises(UnsupportedParameter):
        await compiler.compile(make_model(), regex())
    compiler.close()


async def test_the_cores_own_answer_enforces() -> None:
    """With any tokenizer."""
    compiler = make_compiler(TextDefaults(Settings()))
    grammar = await compiler.compile(make_model(), regex("a+b"))
    assert reads(grammar, list(b"aab"), end=END)
    assert not reads(grammar, list(b"aa"), end=END)
    compiler.close()


async def test_a_server_that_ends_compiles_no_more() -> None:
    """Its threads are let go."""
    async with serving(saying("Hello!")) as served:
        compiler = served.server.dispatcher.planner.grammars
        model = served.server.models.find_ready("test-model")
        await compiler.compile(model, regex())
    with pytest.raises(RuntimeError):
        await compiler.compile(model, regex("b"))
