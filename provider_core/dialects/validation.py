"""One clear `InvalidRequest` out of whatever is wrong with a request.

Messages are written here from the kind of the error and the limit that was broken. Of what the
client sent they repeat numbers only, cut to `MAX_ECHO` characters.
"""

from collections.abc import Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from provider_core.errors import InvalidRequest

MAX_ECHO = 64  # characters of the client's own input in a message

_Model = TypeVar("_Model", bound=BaseModel)

_EXPECTED_BY_TYPE = {
    "int_type": "an integer",
    "float_type": "a number",
    "bool_type": "a boolean",
    "string_type": "a string",
    "list_type": "an array",
    "dict_type": "an object",
    "model_type": "an object",
}
_LIMIT_BY_TYPE = {
    "greater_than_equal": ("ge", "at least"),
    "greater_than": ("gt", "greater than"),
    "less_than_equal": ("le", "at most"),
    "less_than": ("lt", "less than"),
}


def validate(model: type[_Model], body: dict[str, Any]) -> _Model:  # JSON values of any kind
    """Validate a request body.

    Raises:
        InvalidRequest: For the first field at fault.
    """
    try:
        return model.model_validate(body)
    except ValidationError as error:
        details = error.errors(include_url=False)[0]
    raise _explain(details["type"], details["loc"], details["input"], details.get("ctx", {}))


def wrong_type(param: str, expected: str, value: object) -> InvalidRequest:
    """The error for a value of the wrong JSON type; `expected` has its article."""
    return InvalidRequest(
        f"{param} must be {expected}, not {kind(value)}", param=param, code="invalid_type"
    )


def bad_value(param: str, requirement: str) -> InvalidRequest:
    """The error for a value out of range; `requirement` follows the field's name."""
    return InvalidRequest(f"{param} {requirement}", param=param, code="invalid_value")


def kind(value: object) -> str:
    """What JSON calls a value, with its article."""
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case int():
            return "an integer"
        case float():
            return "a floating-point number"
        case str():
            return "a string"
        case list():
            return "an array"
        case _:
            return "an object"


def path(location: Sequence[str | int]) -> str:
    """A field's name as the field's clients write it, e.g. `messages[0].content`."""
    name = ""
    for part in location:
        if isinstance(part, int):
            name += f"[{part}]"
        else:
            name += f".{part}" if name else part
    return name


def _explain(
    error_type: str,
    location: Sequence[str | int],
    value: object,
    context: dict[str, Any],  # pydantic's limits: numbers or strings
) -> InvalidRequest:
    param = path(location)
    if error_type == "missing":
        return InvalidRequest(
            f"{param} is required", param=param, code="missing_required_parameter"
        )
    if error_type in _EXPECTED_BY_TYPE:
        if error_type == "int_type" and isinstance(value, float) and abs(value) >= 2**63:
            return bad_value(param, "must be an integer of at most 64 bit")
        return wrong_type(param, _EXPECTED_BY_TYPE[error_type], value)
    if error_type in _LIMIT_BY_TYPE:
        key, words = _LIMIT_BY_TYPE[error_type]
        return bad_value(param, f"must be {words} {context[key]:.10g}, not {str(value)[:MAX_ECHO]}")
    match error_type:
        case "string_too_short" | "too_short":
            return bad_value(param, "must not be empty")
        case "string_too_long":
            return bad_value(param, f"must be at most {context['max_length']} characters long")
        case "too_long":
            return bad_value(
                param,
                f"must have at most {context['max_length']} items, "
                f"not {context.get('actual_length', 'more')}",
            )
        case "literal_error":
            return bad_value(param, f"must be one of {context['expected']}")
        case _:
            return bad_value(param, "has a value that is not allowed")
