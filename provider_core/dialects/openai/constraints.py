"""What a chat's text has to be: `response_format`, and the fields vLLM's clients use for the same.

Here the shape is checked. Whether a schema, expression or grammar can be enforced is decided where
it is compiled; the errors from there name it by the `param` given here.
"""

from typing import Any

import orjson

from provider_core.dialects.declared_tools import check_tool_name
from provider_core.dialects.validation import MAX_ECHO, bad_value, wrong_type
from provider_core.errors import InvalidRequest, UnsupportedParameter
from provider_core.types import Constraint

MAX_CHOICES = 4096

_GUIDED = {
    "guided_json": "json",
    "guided_regex": "regex",
    "guided_choice": "choice",
    "guided_grammar": "grammar",
}
_KINDS = ("json", "json_object", "regex", "choice", "grammar")


def parse_constraint(body: dict[str, Any]) -> Constraint | None:
    """Read whichever field of a request constrains the answer's text.

    Args:
        body: The request, of which `response_format`, `structured_outputs`, `guided_json`,
            `guided_regex`, `guided_choice` and `guided_grammar` are read.

    Raises:
        InvalidRequest: One is malformed, or two ask for something.
        UnsupportedParameter: A form that is not served.
    """
    found = [parse_response_format(body.get("response_format"))]
    found.append(_structured_outputs(body.get("structured_outputs")))
    found += [_constraint(kind, body.get(name), name) for name, kind in _GUIDED.items()]
    constraints = [constraint for constraint in found if constraint is not None]
    if len(constraints) > 1:
        first, second = constraints[0].param, constraints[1].param
        raise bad_value(second, f"must not be given beside {first}: a text obeys one of them")
    return constraints[0] if constraints else None


def parse_response_format(value: Any) -> Constraint | None:
    """Read `response_format`.

    Raises:
        InvalidRequest: It is malformed; `param` says where.
        UnsupportedParameter: A type that is not served.
    """
    if value is None:
        return None
    if not isinstance(value, dict):
        raise wrong_type("response_format", "an object", value)
    if value.get("type") == "json_schema":
        schema = value.get("json_schema")
        if not isinstance(schema, dict):
            raise wrong_type("response_format.json_schema", "an object", schema)
        return schema_constraint(schema, "response_format.json_schema")
    if value.get("type") == "grammar":
        return _constraint("grammar", value.get("grammar"), "response_format.grammar", needed=True)
    return plain_format(value, "response_format")


def plain_format(value: dict[str, Any], param: str) -> Constraint | None:
    """Read a format that is only a type: `text` or `json_object`.

    Raises:
        InvalidRequest: The type is unknown.
        UnsupportedParameter: It is known and not served.
    """
    kind = value.get("type")
    if kind == "text":
        return None
    if kind == "json_object":
        return Constraint(kind="json_object", param=param)
    if not isinstance(kind, str):
        raise wrong_type(f"{param}.type", "a string", kind)
    if kind == "python":
        message = f"{param}.type 'python' is not supported by this server"
        raise UnsupportedParameter(message, param=f"{param}.type")
    raise bad_value(
        f"{param}.type", f"must be text, json_object or json_schema, not {kind[:MAX_ECHO]!r}"
    )


def schema_constraint(value: dict[str, Any], param: str) -> Constraint:
    """Read a named JSON schema: `name`, `schema`, and maybe `description` and `strict`.

    Raises:
        InvalidRequest: One of them is missing or malformed; `param` is the beginning of its name.
    """
    check_tool_name(value.get("name"), f"{param}.name")
    for name, kind, words in (("description", str, "a string"), ("strict", bool, "a boolean")):
        if value.get(name) is not None and not isinstance(value[name], kind):
            raise wrong_type(f"{param}.{name}", words, value[name])
    schema = value.get("schema")
    if not isinstance(schema, dict):
        raise wrong_type(f"{param}.schema", "an object", schema)
    return Constraint(
        kind="json_schema",
        source=orjson.dumps(schema).decode(),
        param=f"{param}.schema",
        strict=value.get("strict") is True,
    )


def _structured_outputs(value: Any) -> Constraint | None:
    if value is None:
        return None
    if not isinstance(value, dict):
        raise wrong_type("structured_outputs", "an object", value)
    asked = {name: item for name, item in value.items() if item is not None and item is not False}
    other = next((name for name in asked if name not in _KINDS), None)
    if other is not None:
        param = f"structured_outputs.{other[:MAX_ECHO]}"
        raise UnsupportedParameter(f"{param} is not supported by this server", param=param)
    if len(asked) > 1:
        raise bad_value("structured_outputs", f"must have one of {', '.join(_KINDS)}, not more")
    for name, item in asked.items():
        return _constraint(name, item, f"structured_outputs.{name}")
    return None


def _constraint(kind: str, value: Any, param: str, *, needed: bool = False) -> Constraint | None:
    if value is None and not needed:
        return None
    match kind:
        case "json":
            return Constraint(kind="json_schema", source=_json_text(value, param), param=param)
        case "json_object":
            if value is not True:
                raise wrong_type(param, "a boolean", value)
            return Constraint(kind="json_object", param=param)
        case "choice":
            return Constraint(kind="choice", source=_choices(value, param), param=param)
        case _:
            if not isinstance(value, str):
                raise wrong_type(param, "a string", value)
            if not value:
                raise bad_value(param, "must not be empty")
            is_regex = kind == "regex"
            return Constraint(kind="regex" if is_regex else "lark", source=value, param=param)


def _json_text(value: Any, param: str) -> str:
    """A schema as text; clients give it as an object or already as text."""
    if isinstance(value, str):
        try:
            value = orjson.loads(value)
        except orjson.JSONDecodeError:
            raise InvalidRequest(
                f"{param} must be a JSON schema: its text is no JSON",
                param=param,
                code="invalid_schema",
            ) from None
    if not isinstance(value, dict):
        raise wrong_type(param, "a JSON schema", value)
    return orjson.dumps(value).decode()


def _choices(value: Any, param: str) -> str:
    if not isinstance(value, list):
        raise wrong_type(param, "an array of strings", value)
    if not 1 <= len(value) <= MAX_CHOICES:
        raise bad_value(param, f"must have 1 to {MAX_CHOICES} strings, not {len(value)}")
    for index, item in enumerate(value):
        if not isinstance(item, str):
            raise wrong_type(f"{param}[{index}]", "a string", item)
        if not item:
            raise bad_value(f"{param}[{index}]", "must not be empty")
    return orjson.dumps(value).decode()
