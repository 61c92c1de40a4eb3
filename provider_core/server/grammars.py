"""Grammars for requests: compiled off the loop, in bounded time, and kept for the next request."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from typing import TypeVar

from provider_core import hookspecs
from provider_core.errors import InvalidRequest, Overloaded, UnsupportedParameter
from provider_core.plugins import PluginManager
from provider_core.server.daemon_executor import DaemonExecutor
from provider_core.server.models import Models, ServedModel
from provider_core.settings import LimitSettings
from provider_core.text.grammar import check_client_grammar
from provider_core.types import Constraint, Grammar

_NUM_THREADS = 2
_GRAMMAR_BYTES = 65_536  # of a small grammar; measured are 45 KiB
_BYTES_PER_CHARACTER = 16  # of its source, more
_RETRY_S = 1.0
_FIRST_TIMEOUT_S = 30.0  # for a model's first, which reads its vocabulary
_IDLE_S = 1.0
_ANY_OBJECT = Constraint(kind="json_object")

_Key = tuple[bytes, Constraint]  # the model's `load_id`
_T = TypeVar("_T")


class GrammarCompiler:
    """Asks the `compile_grammar` hook, once for each model and constraint.

    Args:
        plugins: Who is asked.
        limits: How long one compilation may last, and how much is kept.
    """

    def __init__(self, plugins: PluginManager, limits: LimitSettings) -> None:
        self._plugins = plugins
        self._timeout_s = limits.grammar_timeout_s
        self._allows_lark = limits.client_grammars
        self._max_bytes = limits.grammar_cache_mib * 2**20
        # Daemons: what has no end in time does not keep the process from its own.
        self._executor = DaemonExecutor(_NUM_THREADS, "grammar-compiler")
        self._kept: OrderedDict[_Key, Grammar] = OrderedDict()
        self._known: set[bytes] = set()  # `load_id` of models for which something was compiled
        self._running: dict[_Key, asyncio.Task[Grammar]] = {}

    async def compile(self, model: ServedModel, constraint: Constraint) -> Grammar:
        """The grammar of a constraint.

        Raises:
            InvalidRequest: `invalid_schema` or `schema_too_complex`; `param` says what is at fault.
            UnsupportedParameter: Nobody enforces such a constraint for this model.
            Overloaded: Too many others are being compiled.
        """
        if "grammar" in model.spec.unsupported_params:
            raise _unenforced(model, constraint)
        key = (model.load_id, constraint)
        kept = self._kept.get(key)
        if kept is not None:
            self._kept.move_to_end(key)
            return kept
        task = self._running.get(key)
        if task is None:
            task = asyncio.create_task(self._compile(model, constraint))
            self._running[key] = task
            task.add_done_callback(lambda done: self._forget(key, done))
        return await asyncio.shield(task)  # others may wait for it, too

    def check_allowed(self, constraint: Constraint) -> None:
        """Refuse what clients may not ask for, whoever could enforce it.

        Raises:
            UnsupportedParameter: Grammars of clients are not served here.
            InvalidRequest: This one is too long, or may name control tokens.
        """
        if constraint.kind != "lark":
            return
        if not self._allows_lark:
            message = f"{constraint.param} is not supported by this server"
            raise UnsupportedParameter(message, param=constraint.param)
        check_client_grammar(constraint.source, constraint.param)

    async def write(self, work: Callable[[], _T], param: str) -> _T:
        """Write a constraint where it would be compiled, and in no more time.

        Args:
            work: What writes it.
            param: The request's field that is to blame if that takes too long.

        Raises:
            InvalidRequest: `schema_too_complex`, or what the work raised.
            Overloaded: Too many others are being compiled.
        """
        return await self._in_time(self._executor.submit(work), self._timeout_s, param)

    async def prepare(self, model: ServedModel) -> None:
        """Have a model's vocabulary read before its first constraint comes. Idempotent.

        With 150,000 ids that holds the interpreter lock for some 0.35 s, which all streams feel.
        """
        if model.load_id in self._known:
            return
        with suppress(Exception):  # a plugin may raise anything; a request will be told
            await self.compile(model, _ANY_OBJECT)
        self._known.add(model.load_id)

    async def follow(self, models: Models) -> None:
        """Look every second what can be prepared and what is to be forgotten. Until cancelled.

        Models are prepared while no request has been open for a second. What was compiled for
        one that has gone is forgotten, and so is what has grown too much in use.
        """
        while True:
            await asyncio.sleep(_IDLE_S)
            self._forget_gone({model.load_id for model in models.in_memory})
            self._trim()
            await self._prepare_idle(models)

    def close(self) -> None:
        """Compile no more. Idempotent."""
        self._executor.close()

    async def _prepare_idle(self, models: Models) -> None:
        for model in models:
            if not _is_idle(models):
                break
            if isinstance(model, ServedModel):
                await self.prepare(model)

    async def _compile(self, model: ServedModel, constraint: Constraint) -> Grammar:
        work = self._executor.submit(
            lambda: self._plugins.first(
                hookspecs.compile_grammar,
                model=model.spec,
                tokenizer=model.tokenizer,
                constraint=constraint,
            )
        )
        is_first = model.load_id not in self._known
        timeout_s = max(self._timeout_s, _FIRST_TIMEOUT_S) if is_first else self._timeout_s
        grammar = await self._in_time(work, timeout_s, constraint.param)
        if grammar is None:
            raise _unenforced(model, constraint)
        self._known.add(model.load_id)
        self._kept[model.load_id, constraint] = grammar
        self._trim()
        return grammar

    async def _in_time(self, work: Future[_T], timeout_s: float, param: str) -> _T:
        try:
            return await asyncio.wait_for(asyncio.wrap_future(work), timeout_s)
        except TimeoutError:
            if work.cancelled():  # it never began
                raise Overloaded(
                    "too many schemas are being compiled", retry_after_s=_RETRY_S
                ) from None
            raise InvalidRequest(
                f"this takes longer than {timeout_s:g} s to compile",
                param=param,
                code="schema_too_complex",
            ) from None

    def _trim(self) -> None:
        """Forget grammars that were not used for longest; all of them grow while they are used.

        It looks at each: too long for every request that finds its grammar.
        """
        num_bytes = sum(_size(key, grammar) for key, grammar in self._kept.items())
        while num_bytes > self._max_bytes:
            num_bytes -= _size(*self._kept.popitem(last=False))

    def _forget_gone(self, in_memory: set[bytes]) -> None:
        """Forget what was compiled for models that are in memory no more."""
        if self._known <= in_memory:
            return
        self._known &= in_memory
        for key in [key for key in self._kept if key[0] not in in_memory]:
            del self._kept[key]

    def _forget(self, key: _Key, task: asyncio.Task[Grammar]) -> None:
        del self._running[key]
        if not task.cancelled():
            task.exception()  # whoever waits has it; nobody may be left


def _unenforced(model: ServedModel, constraint: Constraint) -> UnsupportedParameter:
    message = f"the model {model.spec.id!r} cannot enforce it"
    return UnsupportedParameter(message, param=constraint.param)


def _is_idle(models: Models) -> bool:
    quiet_since_s = time.monotonic() - _IDLE_S
    return not any(m.num_open or m.released_s > quiet_since_s for m in models.in_memory)


def _size(key: _Key, grammar: Grammar) -> int:
    grown = getattr(grammar, "num_grown_bytes", 0)  # plugins' may not say
    return _GRAMMAR_BYTES + _BYTES_PER_CHARACTER * len(key[1].source) + grown
