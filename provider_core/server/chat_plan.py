"""From a conversation to what the engine is asked: prompt, grammar, and how replies are read.

Everything here may still refuse the request.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from provider_core import hookspecs
from provider_core.dialects.chat_request import ChatRequest, Effort, ReasoningOptions
from provider_core.errors import UnsupportedParameter
from provider_core.interfaces import RenderedPrompt
from provider_core.plugins import PluginManager
from provider_core.server.call_grammars import CallGrammars
from provider_core.server.grammars import GrammarCompiler
from provider_core.server.models import ServedModel
from provider_core.text.chat_syntax import SWITCHES, ChatSyntax
from provider_core.text.output_reader import OutputFormat, find_control_tokens
from provider_core.text.reasoning import ReasoningSyntax
from provider_core.text.reasoning_control import reasoning_grammar
from provider_core.tool_calling import ToolParser
from provider_core.types import Constraint, Grammar, Tool

_BUDGETS: dict[Effort, float] = {  # of max_tokens, as OpenRouter documents its levels of effort
    "minimal": 0.1,
    "low": 0.2,
    "medium": 0.5,
    "high": 0.8,
    "xhigh": 0.95,
}
_TEMPLATE_EFFORTS: dict[Effort, str] = {  # templates know three
    "minimal": "low",
    "low": "low",
    "medium": "medium",
    "high": "high",
    "xhigh": "high",
    "max": "high",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplyPlan:
    """How replies are constrained and read."""

    grammar: Grammar | None = None
    output: OutputFormat | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Reasoning:
    """What becomes of a request's wishes.

    Attributes:
        variables: For the template.
        share: Of the most tokens there may be, that reasoning may take.
        max_tokens: Most tokens of reasoning.
    """

    variables: dict[str, object] = field(default_factory=dict)
    share: float | None = None
    max_tokens: int | None = None

    def budget(self, max_tokens: int) -> int | None:
        """Most tokens of reasoning among so many; `None` is any number."""
        if self.max_tokens is not None or self.share is None:
            return self.max_tokens
        return int(self.share * max_tokens)


class ChatPlanner:
    """Plans conversations. One per server.

    Args:
        plugins: Asked for parsers of calls.
        grammars: Compiles constraints.
    """

    def __init__(self, plugins: PluginManager, grammars: GrammarCompiler) -> None:
        self._plugins = plugins
        self.grammars = grammars

    async def render(self, model: ServedModel, chat: ChatRequest) -> RenderedPrompt:
        """Write the prompt.

        Raises:
            UnsupportedParameter: The model has no chat template, takes no tools, or does not
                reason.
            InvalidRequest: The template refuses the conversation.
        """
        template = model.chat_template
        if template is None:
            raise UnsupportedParameter(
                f"the model {model.spec.id!r} has no chat template; use completions",
                param="messages",
            )
        tools = _shown_tools(chat)
        if tools and self._tool_parser(model, tools) is None:
            raise UnsupportedParameter(f"the model {model.spec.id!r} takes no tools", param="tools")
        # In a thread, however short: a model folder's template may be hostile, and then only its
        # own request may wait until it is stopped.
        return await asyncio.to_thread(
            template.render,
            chat.messages,
            tools=[tool.definition for tool in tools] or None,
            continue_final_message=chat.continue_final_message,
            variables=_plan_reasoning(model, chat.reasoning).variables,
        )

    async def plan(
        self, model: ServedModel, chat: ChatRequest, prompt: RenderedPrompt, max_tokens: int
    ) -> ReplyPlan:
        """Decide how replies are constrained and read.

        Args:
            model: Which model.
            chat: What is asked.
            prompt: What `render` returned.
            max_tokens: Most tokens of a reply.

        Raises:
            InvalidRequest: A schema cannot be enforced.
        """
        if chat.response_format is not None:
            self.grammars.check_allowed(chat.response_format)
        syntax, tags = model.syntax, model.syntax.reasoning
        tools = _callable_tools(chat)
        family = syntax.tools
        is_read = tools or (family and family.frames_replies)
        parser = self._tool_parser(model, tools) if is_read else None
        control_tokens = find_control_tokens(model.tokenizer, _markup(parser, tags))
        if parser is None:
            answer = await self._compile(model, chat.response_format)
        else:
            calls = CallGrammars(self.grammars, model, chat, tools, control_tokens)
            answer = await calls.compile(parser.syntax)
        is_open = tags is not None and _ends_with(prompt, tags.open)
        grammar = answer
        is_framed = family is not None and family.frames_replies
        if syntax.reasoning_ids and (answer is None or not is_framed):
            budget = _plan_reasoning(model, chat.reasoning).budget(max_tokens)
            grammar = reasoning_grammar(
                syntax.reasoning_ids, answer=answer, max_tokens=budget, is_open=is_open
            )
            if grammar is not None and "grammar" in model.spec.unsupported_params:
                message = f"the model {model.spec.id!r} cannot limit its reasoning"
                raise UnsupportedParameter(message, param=chat.reasoning.param)
        if parser is None and tags is None:
            return ReplyPlan(grammar=grammar)
        output = OutputFormat(
            reasoning=tags,
            opens_reasoning=is_open,
            shows_reasoning=not chat.reasoning.exclude,
            tool_parser=parser,
            allows_parallel_calls=chat.parallel_tool_calls and not chat.tool_choice.is_named,
            control_tokens=control_tokens,
        )
        return ReplyPlan(grammar=grammar, output=output)

    def _tool_parser(self, model: ServedModel, tools: Sequence[Tool]) -> ToolParser | None:
        parser = self._plugins.first(hookspecs.make_tool_parser, model=model.spec, tools=tools)
        family = model.syntax.tools
        return family.make(tools) if parser is None and family else parser

    async def _compile(self, model: ServedModel, constraint: Constraint | None) -> Grammar | None:
        return None if constraint is None else await self.grammars.compile(model, constraint)


def _shown_tools(chat: ChatRequest) -> Sequence[Tool]:
    """What the template shows: all that is declared, so that prompts with them begin alike."""
    return () if chat.tool_choice.mode == "none" else chat.tools


def _callable_tools(chat: ChatRequest) -> Sequence[Tool]:
    names = chat.tool_choice.names
    return [tool for tool in _shown_tools(chat) if not names or tool.name in names]


def _plan_reasoning(model: ServedModel, options: ReasoningOptions) -> _Reasoning:
    """Turn a client's wishes into what the model's template understands, or into a budget.

    Raises:
        UnsupportedParameter: The model does not reason, and shall.
    """
    is_off = options.enabled is False or options.effort == "none"
    is_asked = options.enabled or options.max_tokens is not None or options.effort is not None
    syntax = model.syntax
    if syntax.reasoning is None:
        if is_asked and not is_off:
            message = f"the model {model.spec.id!r} does not reason"
            raise UnsupportedParameter(message, param=options.param)
        return _Reasoning()
    if not (is_off or is_asked):
        return _Reasoning()
    switches = syntax.variables.intersection(SWITCHES)
    variables: dict[str, object] = dict.fromkeys(switches, not is_off)
    if is_off:
        return _Reasoning(variables=variables, max_tokens=None if switches else 0)
    return _with_effort(syntax, options, variables)


def _with_effort(
    syntax: ChatSyntax, options: ReasoningOptions, variables: dict[str, object]
) -> _Reasoning:
    effort, max_tokens = options.effort, options.max_tokens
    if effort is not None and "reasoning_effort" in syntax.variables:
        variables["reasoning_effort"] = _TEMPLATE_EFFORTS[effort]
        effort = None
    if max_tokens is not None and "thinking_budget" in syntax.variables:
        variables["thinking_budget"] = max_tokens
    share = None if effort is None else _BUDGETS.get(effort)
    return _Reasoning(variables=variables, share=share, max_tokens=max_tokens)


def _markup(parser: ToolParser | None, tags: ReasoningSyntax | None) -> Sequence[str]:
    spellings = [tags.open, tags.close] if tags else []
    return [*spellings, *(parser.syntax.control_tokens if parser and parser.syntax else ())]


def _ends_with(prompt: RenderedPrompt, tag: str) -> bool:
    """Whether the template, and not a client, left a tag open at the end."""
    text, is_template = prompt.segments[-1] if prompt.segments else ("", False)
    return is_template and text.rstrip().endswith(tag)
