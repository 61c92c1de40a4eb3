"""Which calls a model may write: a grammar of the request's tools in the family's syntax.

A call can only name a tool that may be called, and its arguments conform to that tool's schema.
Text before the first call stays free as long as the model may choose; behind the calls there is
none. See `grammar` for the language.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from provider_core.errors import InvalidRequest
from provider_core.text.element_grammar import element_rules
from provider_core.text.grammar import control_token, json_rule, lark_of
from provider_core.tool_calling import ToolSyntax
from provider_core.types import Constraint, Tool

_ANY_OBJECT = {"type": "object"}
_NO_ARGUMENTS = {"type": "object", "properties": {}, "additionalProperties": False}
_ANY_TEXT = r"/(.|\n)+/"
_TEXT = f"TEXT: {_ANY_TEXT}"
_DEFINITIONS = frozenset({"$defs", "definitions"})
_COMBINING = frozenset(
    {"$ref", "allOf", "anyOf", "oneOf", "patternProperties", "additionalProperties"}
)


def tool_constraint(
    syntax: ToolSyntax,
    tools: Sequence[Tool],
    *,
    control_tokens: Mapping[int, str],
    must_call: bool = False,
    is_single: bool = False,
    answer: Constraint | None = None,
    loose: frozenset[str] = frozenset(),
) -> Constraint:
    """Describe all replies that call these tools rightly, or none if the model may choose.

    Args:
        syntax: The family's.
        tools: That may be called; at least one, unless the family frames its replies.
        control_tokens: Ids of the syntax's control tokens, and their spellings.
        must_call: The reply is one or more calls and nothing else.
        is_single: At most one call.
        answer: What a reply without calls has to be.
        loose: Names of tools whose arguments may be any object.

    Raises:
        InvalidRequest: The schema of a tool that is `strict` cannot be enforced, or the answer's
            cannot be combined with tools.
    """
    spell = _Speller(control_tokens)
    names = [f"c{i}" for i in range(len(tools))]
    arguments = [
        rule
        for name, tool in zip(names, tools, strict=True)
        for rule in _arguments_rules(f"{name}a", syntax, tool, spell, is_loose=tool.name in loose)
    ]
    calls = _Calls(syntax, tools, spell, names, more="" if is_single else " more*")
    if syntax.answer_opening:
        rules = [*calls.framed(must_call=must_call, has_answer=answer is not None), *arguments]
    elif answer and not (must_call or syntax.trigger):
        rules = calls.as_documents(loose)
    elif must_call or answer:
        rules = [f"start: {calls.opened()}", *calls.rules(), *arguments]
    elif syntax.trigger:
        rules = [*calls.triggered(), *calls.rules(), *arguments]
    else:
        rules = [*calls.bare(), *calls.rules(), *arguments]
    if answer and not must_call:
        if not syntax.answer_opening:
            rules[0] = f"{rules[0]} | answer"
        rules.append(f"answer: {_answer_rule(answer)}")
    return Constraint(kind="lark", source="\n".join(rules), param="tools")


@dataclass(frozen=True, slots=True)
class _Calls:
    """The rules of calls; the first says what the reply is.

    `opened` and `triggered` and `bare` differ in how a reply gets to the first call.
    """

    syntax: ToolSyntax
    tools: Sequence[Tool]
    spell: "_Speller"
    names: Sequence[str]  # of the tools' rules
    more: str  # behind the first call

    @property
    def tail(self) -> str:
        """What follows the arguments, if their rule does not say it."""
        return "" if self.syntax.is_free else self.spell(self.syntax.after_arguments)

    def opened(self) -> str:
        """The first thing is a call."""
        return self.behind(self.syntax.begin + self.syntax.before_name)

    def behind(self, opening: str) -> str:
        """What is left of the opening, and the calls."""
        return f"{self.spell(opening)} call{self.more} {self.spell(self.syntax.end)}"

    def triggered(self) -> list[str]:
        """Any text, until the trigger makes it a call."""
        syntax, spell = self.syntax, self.spell
        opening = syntax.begin + syntax.before_name
        behind = self.behind(opening.removeprefix(syntax.trigger))
        if spell.is_control(syntax.trigger):
            start = [f"start: TEXT? ({spell(syntax.trigger)} {behind})?"]
        else:
            start = [
                f"start: TEXT? | trigger {behind}",
                f"trigger[lazy]: TEXT? {spell(syntax.trigger)}",
            ]
        return [*start, _TEXT]

    def bare(self) -> list[str]:
        """Any text, but one that begins like a call of a tool is one."""
        syntax, spell = self.syntax, self.spell
        rules = [f"start: TEXT? | bare{self.more}", _TEXT]
        for name, tool in zip(self.names, self.tools, strict=True):
            head = syntax.begin + syntax.before_name + tool.name + syntax.after_name
            rules.append(f"{name}h[lazy]: {spell(head)}")
        tail = self.tail
        heads = (f"{name}h {name}a {tail}" for name in self.names)
        return [*rules, f"bare: {' | '.join(heads)}"]

    def framed(self, *, must_call: bool, has_answer: bool) -> list[str]:
        """Asides, then the content in its frame, or one call."""
        syntax, spell = self.syntax, self.spell
        content = f"{spell(syntax.answer_opening)} {'answer' if has_answer else 'TEXT?'}"
        options = [] if must_call else [content]
        if self.tools:
            options.append(f"{spell(syntax.before_name)} call")
        asides = [
            f"aside{i}: {spell(opening)} TEXT? {spell(closing)}"
            for i, (opening, closing) in enumerate(syntax.asides)
        ]
        names = " | ".join(f"aside{i}" for i in range(len(asides)))
        start = f"start: ({names})* ({' | '.join(options)})"
        return [start, _TEXT, *asides, *(self.rules() if self.tools else [])]

    def rules(self) -> list[str]:
        """A call behind its opening, and one more."""
        syntax, spell = self.syntax, self.spell
        tail = self.tail
        return [
            f"call: {' | '.join(self.names)}",
            f"more: {spell(syntax.separator + syntax.before_name)} call",
            *(
                f"{name}: {spell(tool.name + syntax.after_name)} {name}a {tail}"
                for name, tool in zip(self.names, self.tools, strict=True)
            ),
        ]

    def as_documents(self, loose: frozenset[str]) -> list[str]:
        """One call, as a JSON document: all that a call without markup is.

        Only so can it be told from an answer that is one, too.
        """
        rules = [f"start: {' | '.join(self.names)}"]
        for name, tool in zip(self.names, self.tools, strict=True):
            schema = _ANY_OBJECT if tool.name in loose else arguments_schema(tool)
            document = self._document(tool, schema)
            rule = _enforced(document, tool, instead=self._document(tool, _ANY_OBJECT))
            rules.append(f"{name}: {rule}")
        return rules

    def _document(self, tool: Tool, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """The schema of a call with arguments of a schema."""
        written = f"{tool.name}{self.syntax.after_name}null{self.syntax.after_arguments}"
        call = orjson.loads(self.syntax.before_name + written)
        return {
            "type": "object",
            "properties": {
                key: arguments if value is None else {"const": value} for key, value in call.items()
            },
            "required": list(call),
            "additionalProperties": False,
            **{key: arguments[key] for key in _DEFINITIONS & arguments.keys()},
        }


def arguments_schema(tool: Tool) -> dict[str, Any]:
    """The schema of a tool's arguments, never wider than the client's.

    Arguments are an object. Where the client declares its members and does not say that there may
    be others, there are no others.
    """
    if tool.parameters is None:
        return _NO_ARGUMENTS
    schema = dict(tool.parameters)
    schema.setdefault("type", "object")
    if "properties" in schema and not _COMBINING & schema.keys():
        required, properties = schema.get("required"), schema["properties"]
        is_list = isinstance(required, list) and isinstance(properties, dict)
        if required is None or (is_list and set(required) <= properties.keys()):
            schema["additionalProperties"] = False
    return schema


def _arguments_rules(
    rule: str, syntax: ToolSyntax, tool: Tool, spell: "_Speller", *, is_loose: bool
) -> Sequence[str]:
    schema = _ANY_OBJECT if is_loose else arguments_schema(tool)
    if syntax.elements:
        return element_rules(rule, schema, tool, syntax.elements, spell)
    if syntax.is_free:
        if tool.strict:
            message = "arguments cannot be enforced for this model's calls"
            raise InvalidRequest(message, param=tool.param, code="invalid_schema")
        return spell.free(rule, syntax.after_arguments)
    return [f"{rule}: {_enforced(schema, tool, instead=_ANY_OBJECT)}"]


def _enforced(schema: Mapping[str, Any], tool: Tool, *, instead: Mapping[str, Any]) -> str:
    try:
        return json_rule(schema, param=tool.param, strict=tool.strict)
    except InvalidRequest:
        if tool.strict:
            raise
        return json_rule(instead, param=tool.param)


def _answer_rule(answer: Constraint) -> str:
    if answer.kind == "lark":
        message = "a grammar of the answer cannot be combined with tools"
        raise InvalidRequest(message, param=answer.param)
    grammar, _ = lark_of(answer)
    return grammar.removeprefix("start: ")


class _Speller:
    """Spells markup in Lark: control tokens by their ids, all else as text."""

    def __init__(self, control_tokens: Mapping[int, str]) -> None:
        self._ids = {spelling: token_id for token_id, spelling in control_tokens.items()}
        self.is_control = self._ids.__contains__
        self._split = re.compile("|".join(map(re.escape, self._ids)) or r"(?!)")

    def __call__(self, text: str) -> str:
        parts = []
        begin = 0
        for found in self._split.finditer(text):
            parts += [_quoted(text[begin : found.start()]), control_token(self._ids[found[0]])]
            begin = found.end()
        return " ".join(filter(None, [*parts, _quoted(text[begin:])]))

    def free(self, rule: str, closer: str) -> list[str]:
        """Rules of anything up to a closer: text, and all control tokens but that one."""
        text = f"{rule.upper()}: {_ANY_TEXT}"
        if not self.is_control(closer):
            return [f"{rule}[lazy]: {rule.upper()}? {self(closer)}", text]
        tokens = [control_token(i) for spelling, i in self._ids.items() if spelling != closer]
        return [f"{rule}: ({' | '.join([rule.upper(), *tokens])})* {self(closer)}", text]


def _quoted(text: str) -> str:
    return orjson.dumps(text).decode() if text else ""
