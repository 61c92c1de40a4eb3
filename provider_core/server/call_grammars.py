"""What a request's tools allow to be written, compiled; and what if they cannot be enforced."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import orjson

from provider_core.dialects.chat_request import ChatRequest
from provider_core.errors import InvalidRequest, UnsupportedParameter
from provider_core.server.grammars import GrammarCompiler
from provider_core.server.models import ServedModel
from provider_core.text.tool_grammar import arguments_schema, tool_constraint
from provider_core.tool_calling import ToolSyntax
from provider_core.types import Constraint, Grammar, Tool


@dataclass(frozen=True, slots=True)
class CallGrammars:
    """Compiles one request's.

    Attributes:
        grammars: Compiles constraints.
        model: Which model.
        chat: What is asked.
        tools: Those that may be called.
        control_tokens: See `tool_constraint`.
    """

    grammars: GrammarCompiler
    model: ServedModel
    chat: ChatRequest
    tools: Sequence[Tool]
    control_tokens: Mapping[int, str]

    @property
    def is_needed(self) -> bool:
        """Whether the client asked for what only a grammar can promise."""
        must_call = self.chat.tool_choice.mode == "required"
        is_strict = any(tool.strict for tool in self.tools)
        return must_call or is_strict or self.chat.response_format is not None

    async def compile(self, syntax: ToolSyntax | None) -> Grammar | None:
        """The grammar of the replies; arguments that cannot be enforced may be any object.

        Args:
            syntax: How calls are written; `None` if they cannot be constrained.

        Returns:
            `None` if replies are free.

        Raises:
            InvalidRequest: What the client insists on cannot be enforced.
        """
        if not (self.tools or self.chat.response_format):
            return None
        if syntax is None and not self.is_needed:
            return None
        if syntax is None:
            message = f"calls of the model {self.model.spec.id!r} cannot be constrained"
            raise UnsupportedParameter(message, param="tools")
        try:
            return await self._compile(syntax)
        except UnsupportedParameter:  # nobody enforces anything for this model
            if self.is_needed:
                raise
            return None

    async def _compile(self, syntax: ToolSyntax) -> Grammar:
        try:
            return await self._compile_with(syntax, frozenset())
        except UnsupportedParameter:
            raise
        except InvalidRequest as error:
            if error.param != "tools":  # it is known already what is to blame
                raise
            if error.code == "schema_too_complex":  # all of them together
                loose = frozenset(tool.name for tool in self.tools if not tool.strict)
            else:
                loose = await self._unenforceable()
            if not loose:
                raise
        return await self._compile_with(syntax, loose)

    async def _compile_with(self, syntax: ToolSyntax, loose: frozenset[str]) -> Grammar:
        choice = self.chat.tool_choice
        write = partial(
            tool_constraint,
            syntax,
            self.tools,
            control_tokens=self.control_tokens,
            must_call=choice.mode == "required",
            is_single=choice.is_named or not self.chat.parallel_tool_calls,
            answer=self.chat.response_format,
            loose=loose,
        )
        constraint = await self.grammars.write(write, "tools")
        return await self.grammars.compile(self.model, constraint)

    async def _unenforceable(self) -> frozenset[str]:
        """The tools whose schemas the grammar's compiler refuses.

        Raises:
            InvalidRequest: One of them is strict.
        """
        names = set()
        for tool in self.tools:
            source = orjson.dumps(arguments_schema(tool)).decode()
            constraint = Constraint(
                kind="json_schema", source=source, param=tool.param, strict=tool.strict
            )
            try:
                await self.grammars.compile(self.model, constraint)
            except InvalidRequest:
                if tool.strict:
                    raise
                names.add(tool.name)
        return frozenset(names)
