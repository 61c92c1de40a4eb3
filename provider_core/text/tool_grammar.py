"""Which calls a model may write: a grammar of the request's tools in the family's syntax.

A call can only name a tool that may be called, and its arguments conform to that tool's schema.
Text before the first call stays free as long as the model may choose; behind the calls there is
none. See `grammar` for the language.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from provider_core.errors import InvalidRequest
from provider_core.text.grammar import control_token, json_rule
from provider_core.tool_calling import ToolSyntax
from provider_core.types import Constraint, Tool

_ANY_OBJECT = {"type": "object"}
_NO_ARGUMENTS = {"type": "object", "properties": {}, "additionalProperties": False}
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
        tools: That may be called; at least one.
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
    opening = syntax.begin + syntax.before_name
    rest = "calls" if is_single else "calls more*"
    if must_call or answer:
        start = f"{spell(opening)} {rest} {spell(syntax.end)}"
        rules = [f"start: {start}" if must_call else f"start: answer | {start}"]
    elif syntax.trigger:
        behind = f"{spell(opening.removeprefix(syntax.trigger))} {rest} {spell(syntax.end)}"
        if syntax.trigger in control_tokens.values():
            rules = [f"start: TEXT? ({spell(syntax.trigger)} {behind})?"]
        else:
            rules = [
                f"start: TEXT? | trigger {behind}",
                f"trigger[lazy]: TEXT? {spell(syntax.trigger)}",
            ]
        rules.append(r"TEXT: /(.|\n)+/")
    else:
        rules = [f"start: TEXT? | bare {'' if is_single else 'more*'}", r"TEXT: /(.|\n)+/"]
    is_bare = not (must_call or answer or syntax.trigger)
    if answer:
        rules.append(f"answer: {_answer_rule(answer)}")
    names = [f"c{i}" for i in range(len(tools))]
    rules.append(f"calls: {' | '.join(names)}")
    rules.append(f"more: {spell(syntax.separator + syntax.before_name)} calls")
    for name, tool in zip(names, tools, strict=True):
        head = spell(tool.name + syntax.after_name)
        arguments = f"{name}a {spell(syntax.after_arguments)}"
        rules.append(f"{name}: {head} {arguments}")
        rules.append(f"{name}a: {_arguments_rule(tool, is_loose=tool.name in loose)}")
        if is_bare:
            rules.append(f"{name}h[lazy]: {spell(opening + tool.name + syntax.after_name)}")
    if is_bare:
        heads = (f"{name}h {name}a {spell(syntax.after_arguments)}" for name in names)
        rules.append(f"bare: {' | '.join(heads)}")
    return Constraint(kind="lark", source="\n".join(rules), param="tools")


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


def _arguments_rule(tool: Tool, *, is_loose: bool) -> str:
    schema = _ANY_OBJECT if is_loose else arguments_schema(tool)
    try:
        return json_rule(schema, param=tool.param, strict=tool.strict)
    except InvalidRequest:
        if tool.strict:
            raise
        return json_rule(_ANY_OBJECT, param=tool.param)


def _answer_rule(answer: Constraint) -> str:
    match answer.kind:
        case "json_object":
            return json_rule(_ANY_OBJECT, param=answer.param)
        case "json_schema":
            schema = orjson.loads(answer.source)
            return json_rule(schema, param=answer.param, strict=answer.strict)
    raise InvalidRequest(
        f"an answer constrained by {answer.kind} cannot be combined with tools", param=answer.param
    )


class _Speller:
    """Spells markup in Lark: control tokens by their ids, all else as text."""

    def __init__(self, control_tokens: Mapping[int, str]) -> None:
        self._ids = {spelling: token_id for token_id, spelling in control_tokens.items()}
        self._split = re.compile("|".join(map(re.escape, self._ids)) or r"(?!)")

    def __call__(self, text: str) -> str:
        parts = []
        begin = 0
        for found in self._split.finditer(text):
            parts += [_quoted(text[begin : found.start()]), control_token(self._ids[found[0]])]
            begin = found.end()
        return " ".join(filter(None, [*parts, _quoted(text[begin:])]))


def _quoted(text: str) -> str:
    return orjson.dumps(text).decode() if text else ""
