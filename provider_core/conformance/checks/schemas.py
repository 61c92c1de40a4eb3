"""`response_format`: JSON, and JSON of a given schema, whole and streamed."""

from typing import Any

import jsonschema_rs
import orjson

from provider_core.conformance.check import Group
from provider_core.conformance.probe import Probe, content_of
from provider_core.conformance.verdict import Doubtful, Failed, NotApplicable, require
from provider_core.conformance.wire_rules import check_error

GROUP = Group("schemas")

CITY = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 20},
        "population": {"type": "integer", "minimum": 0},
    },
    "required": ["name", "population"],
    "additionalProperties": False,
}
NESTED = {
    "type": "object",
    "properties": {
        "kind": {"enum": ["list", "table"]},
        "items": {
            "type": "array",
            "minItems": 1,
            "maxItems": 2,
            "items": {
                "type": "object",
                "properties": {
                    "label": {"type": "string", "maxLength": 8},
                    "size": {"anyOf": [{"type": "integer"}, {"type": "null"}]},
                    "tags": {"type": "array", "items": {"$ref": "#/$defs/tag"}, "maxItems": 2},
                },
                "required": ["label", "size", "tags"],
                "additionalProperties": False,
            },
        },
    },
    "required": ["kind", "items"],
    "additionalProperties": False,
    "$defs": {"tag": {"type": "string", "enum": ["a", "b"]}},
}
_LIMIT = {"max_tokens": 400}


def _format(schema: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "json_schema",
        "json_schema": {"name": "answer", "schema": schema, "strict": True},
    }


def check_json(text: str, schema: dict[str, Any]) -> str:
    """Judge an answer; returns it, on one line.

    Raises:
        Failed: It is not JSON, or does not conform.
    """
    try:
        parsed = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise Failed(f"the answer is not JSON: {text[:100]!r}") from error
    found = next(jsonschema_rs.Draft7Validator(schema).iter_errors(parsed), None)
    if found is not None:
        raise Failed(f"{text[:100]} does not conform: {found.message}")
    return orjson.dumps(parsed).decode()


async def _ask(probe: Probe, text: str, response_format: dict[str, Any]) -> str:
    fields = {"response_format": response_format, **_LIMIT}
    reply = await probe.ask(text, **fields)
    declared = probe.subject.declares("structured_outputs")
    if reply.status == 400 and not (declared or probe.subject.declares("response_format")):
        raise NotApplicable(f"refused with a 400, and not listed: {reply.excerpt}")
    completion = await probe.chat(text, **fields)
    if completion["choices"][0]["finish_reason"] == "length":
        raise Doubtful(f"the answer was cut at {_LIMIT['max_tokens']} tokens")
    return content_of(completion)


@GROUP.check("json_object", "response_format json_object makes an object")
async def json_object(probe: Probe) -> str:
    """Any object."""
    said = await _ask(probe, "List 3 colors as JSON.", {"type": "json_object"})
    return check_json(said, {"type": "object"})[:60]


@GROUP.check("json_schema", "response_format json_schema makes what the schema says")
async def json_schema(probe: Probe) -> str:
    """A flat object."""
    return check_json(await _ask(probe, "Describe Rome as JSON.", _format(CITY)), CITY)[:60]


@GROUP.check("streamed", "A schema in a stream")
async def streamed(probe: Probe) -> str:
    """The joined text conforms."""
    await _ask(probe, "Describe Rome as JSON.", _format(CITY))
    fields = {"response_format": _format(CITY), **_LIMIT}
    said = await probe.stream_chat("Describe Rome as JSON.", **fields)
    return check_json(said.text, CITY)[:60]


@GROUP.check("nested", "A complex nested schema")
async def nested(probe: Probe) -> str:
    """Arrays of objects, choices, nulls and references."""
    text = "Give me a short list as JSON."
    return check_json(await _ask(probe, text, _format(NESTED)), NESTED)[:60]


@GROUP.check("refused", "A schema that is none is a 400")
async def refused(probe: Probe) -> str:
    """Before anything is generated, streamed or not."""
    await _ask(probe, "Describe Rome as JSON.", _format(CITY))
    broken: list[dict[str, Any]] = [
        _format({"type": "no such type"}),
        {"type": "json_schema", "schema": CITY},
        {"type": "no_such_format"},
    ]
    for response_format in broken:
        for stream in (False, True):
            reply = await probe.ask(response_format=response_format, stream=stream)
            check_error(reply, 400, integer_code=probe.endpoint.is_openrouter)
    require(await probe.chat(), "the endpoint does not answer any more")
    return "an unknown type, a schema in the wrong place, an unknown format: 400 each"
