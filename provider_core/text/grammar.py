r"""Constraints to grammars: what a text has to look like, enforced token by token by llguidance.

Here a constraint becomes a grammar's text; `grammar_compiler` compiles it.

JSON is written in one line, with at most one space behind a comma or a colon, so that no model can
fill its answer with white space. Control tokens are never part of a constrained text; only a Lark
grammar of the server's own may name one, by its id.

Grammars of tool calls
----------------------

They are Lark grammars (`kind="lark"`; llguidance, docs/syntax.md), made of these pieces:

- `json_rule(schema, param)` is a rule's right side for JSON of a schema: checked, limited and
  spelled as for `response_format`. One rule may have several, and text in between::

      start: "<tool_call>\n" call "\n</tool_call>"
      call: %json {...}

- `control_token(token_id)` is one control token, `<[151657]>`. Only rules (lower case) may hold
  it. A token that is no control token is text: write its text, as above.
- Free text, and from a trigger on the grammar, and then free text again::

      start: (trigger call "</tool_call>")* TEXT
      trigger[lazy]: TEXT "<tool_call>"
      TEXT: /(.|\n)*/

  `lazy` ends at the first `<tool_call>`. If the trigger is a control token, no `lazy` is needed:
  `start: (TEXT <[151657]> call <[151658]>)* TEXT`. With `+` for `*` and no `TEXT` at the end, at
  least one call has to come and nothing follows.

A grammar behind reasoning: `grammar_reasoning.AfterReasoning`.
"""

import re
from typing import Any, Never

import orjson

from provider_core.errors import InvalidRequest
from provider_core.text.grammar_schema import (
    MAX_PATTERN_CHARACTERS,
    CheckedSchema,
    check_schema,
)
from provider_core.types import Constraint

MAX_SCHEMA_CHARACTERS = 65_536
"""Of one schema, as JSON."""

_LARK_TEXT = re.compile(r'"(?:\\.|[^"\\\n])*"|/(?:\\.|[^/\\\n])+/')
_JSON_OPTIONS = {
    "whitespace_flexible": False,
    "item_separator": ",[ ]?",
    "key_separator": ":[ ]?",
    "json_allowed_escapes": 'nrbtf\\"',
}


def lark_of(constraint: Constraint) -> tuple[str, CheckedSchema | None]:
    """Write a constraint as a Lark grammar.

    Returns:
        The grammar, and what was made of its JSON schema, if it has one.

    Raises:
        InvalidRequest: `invalid_schema` or `schema_too_complex`; `param` says where.
    """
    source, param = constraint.source, constraint.param
    if constraint.kind == "lark":
        return source, None
    if len(source) > MAX_SCHEMA_CHARACTERS:
        _refuse_long(param)
    checked = None
    match constraint.kind:
        case "json_schema":
            checked = check_schema(_parse(source, param), param=param, strict=constraint.strict)
            rule = schema_rule(checked.schema, param)
        case "json_object":
            rule = schema_rule({"type": "object"}, param)
        case "choice":
            rule = _alternatives(_parse(source, param), param)
        case "regex":
            rule = _expression(source, param)
    return f"start: {rule}", checked


def check_client_grammar(source: str, param: str) -> None:
    """Check a Lark grammar that a client wrote, as far as its text shows.

    Raises:
        InvalidRequest: It is too long, or may name a control token.
    """
    if len(source) > MAX_SCHEMA_CHARACTERS:
        refuse(param, "the grammar is too long", "schema_too_complex")
    if "<" in _LARK_TEXT.sub("", source):
        refuse(param, "a grammar must not name control tokens; write < in quotes")


def json_rule(schema: object, *, param: str, strict: bool = True) -> str:
    """The right side of a Lark rule for JSON of a schema.

    Args:
        schema: JSON value.
        param: The request's field that holds it.
        strict: As in `Constraint`.

    Raises:
        InvalidRequest: `invalid_schema` or `schema_too_complex`.
    """
    return schema_rule(check_schema(schema, param=param, strict=strict).schema, param)


def control_token(token_id: int) -> str:
    """One control token, for a Lark rule."""
    return f"<[{token_id}]>"


def schema_rule(schema: dict[str, Any], param: str) -> str:
    """As `json_rule`, of a schema that was checked.

    Raises:
        InvalidRequest: `schema_too_complex`.
    """
    try:
        text = orjson.dumps({**schema, "x-guidance": _JSON_OPTIONS}).decode()
    except orjson.JSONEncodeError:
        refuse(param, "the schema holds values that are nested too deep", "schema_too_complex")
    if len(text) > MAX_SCHEMA_CHARACTERS:
        _refuse_long(param)
    return f"%json {text}"


def _alternatives(texts: object, param: str) -> str:
    if not isinstance(texts, list) or not texts or not all(isinstance(t, str) for t in texts):
        refuse(param, "the choices must be a list of texts that is not empty")
    return " | ".join(orjson.dumps(text).decode() for text in texts)


def _expression(pattern: str, param: str) -> str:
    if not pattern:
        refuse(param, "the regular expression is empty")
    if len(pattern) > MAX_PATTERN_CHARACTERS:
        message = f"the regular expression has more than {MAX_PATTERN_CHARACTERS} characters"
        refuse(param, message, "schema_too_complex")
    slashes_escaped = re.sub(r"(?s)(\\.)|/", lambda match: match[1] or r"\/", pattern)
    return f"/{slashes_escaped.replace(chr(10), chr(92) + 'n')}/"


def _parse(source: str, param: str) -> object:
    try:
        return orjson.loads(source)
    except orjson.JSONDecodeError:
        refuse(param, "this is not JSON, or nested too deep")


def _refuse_long(param: str) -> Never:
    message = f"the schema has more than {MAX_SCHEMA_CHARACTERS} characters"
    refuse(param, message, "schema_too_complex")


def refuse(param: str, message: str, code: str = "invalid_schema") -> Never:
    """Raise what a client is told about its constraint."""
    raise InvalidRequest(message, param=param, code=code)
