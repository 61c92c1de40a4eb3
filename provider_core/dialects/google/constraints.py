"""What an answer has to look like, as Google's `generationConfig` says it."""

from typing import Any

import orjson

from provider_core.dialects.google.protocol import GenerationConfig
from provider_core.dialects.google.schemas import to_json_schema
from provider_core.dialects.validation import MAX_ECHO, bad_value, wrong_type
from provider_core.errors import UnsupportedParameter
from provider_core.types import Constraint

_JSON = "application/json"
_ENUM = "text/x.enum"
_CONFIG = "generationConfig"


def parse_constraint(config: GenerationConfig) -> Constraint | None:
    """Read `responseMimeType`, `responseSchema` and `responseJsonSchema`.

    Raises:
        InvalidRequest: They contradict each other, or one is malformed.
        UnsupportedParameter: Another media type.
    """
    mime_type = config.response_mime_type
    schema, param = _schema(config)
    if mime_type is None:
        mime_type = "text/plain" if schema is None else _JSON
    match mime_type:
        case "text/plain" | "":
            if schema is not None:
                raise bad_value(f"{_CONFIG}.responseMimeType", f"must be {_JSON} with a schema")
            return None
        case "application/json":
            if schema is None:
                return Constraint(kind="json_object", param=f"{_CONFIG}.responseMimeType")
            source = orjson.dumps(schema).decode()
            # Formats such as `int32` stand in most schemas and constrain no JSON.
            return Constraint(kind="json_schema", source=source, param=param, strict=False)
        case "text/x.enum":
            values = None if schema is None else schema.get("enum")
            if not values:
                raise bad_value(f"{_CONFIG}.responseSchema", f"must have an enum for {_ENUM}")
            return Constraint(kind="choice", source=orjson.dumps(values).decode(), param=param)
        case other:
            raise UnsupportedParameter(
                f"{_CONFIG}.responseMimeType: {other[:MAX_ECHO]!r} is not supported by this model",
                param=f"{_CONFIG}.responseMimeType",
            )


def _schema(config: GenerationConfig) -> tuple[dict[str, Any] | None, str]:
    """The schema as JSON Schema, and its field."""
    name = f"{_CONFIG}.responseSchema"
    json_schema = config.response_json_schema
    if json_schema is None:
        if config.response_schema is None:
            return None, name
        return to_json_schema(config.response_schema, name), name
    if config.response_schema is not None:
        raise bad_value(name, "must not be set beside responseJsonSchema")
    name = f"{_CONFIG}.responseJsonSchema"
    if not isinstance(json_schema, dict):
        raise wrong_type(name, "an object", json_schema)
    return json_schema, name
