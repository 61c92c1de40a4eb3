"""A compiler of grammars over a plugin that counts, and what it is asked."""

import asyncio
from collections.abc import Callable
from typing import Any

from provider_core import Constraint, Grammar, ModelSpec, hookimpl
from provider_core.plugins import PluginManager
from provider_core.server.grammars import GrammarCompiler
from provider_core.server.models import ServedModel
from provider_core.settings import LimitSettings
from tests.unit.text.byte_tokenizer import END, ByteTokenizer

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


def make_model(model_id: str = "m") -> ServedModel:
    """A model with a tokenizer, of which nothing runs."""
    return ServedModel(
        spec=ModelSpec(id=model_id, source="x", eos_token_ids=frozenset({END})),
        engine=NOT_NEEDED,
        tokenizer=ByteTokenizer(),
        chat_template=None,
        decode_token=NOT_NEEDED,
    )


def regex(source: str = "a", param: str = "response_format") -> Constraint:
    """An expression that binds a text; most tests compile nothing."""
    return Constraint(kind="regex", source=source, param=param)


def make_compiler(plugin: object, **limits: Any) -> GrammarCompiler:  # whatever LimitSettings takes
    """What is tested, with a plugin to ask."""
    plugins = PluginManager()
    plugins.register(plugin, "compiling")
    return GrammarCompiler(plugins, LimitSettings(**limits))


async def until(condition: Callable[[], bool]) -> None:
    """Wait until something is true."""
    while not condition():  # noqa: ASYNC110 - a thread makes it true
        await asyncio.sleep(0.001)
