"""The JSON Schema of the usage log's lines, in the package so that whoever reads a log has it."""

from functools import cache
from pathlib import Path
from typing import Any

import jsonschema_rs
import orjson

PATH = Path(__file__).with_name("usage-1.0.json")
"""Of `llm-usage/1.0`: finals, adjustments and heartbeats."""


@cache
def validator() -> jsonschema_rs.Validator:
    """Judges one line, parsed, also whether its times exist; compiled on first use."""
    return jsonschema_rs.validator_for(_schema(), validate_formats=True)


@cache
def integer_names() -> frozenset[str]:
    """The fields, of any line, that are integers."""
    kinds = _schema()["$defs"].values()
    return frozenset(
        name
        for kind in kinds
        for name, rule in kind.get("properties", {}).items()
        if rule.get("type") == "integer" or rule.get("$ref") == "#/$defs/tok"
    )


def _schema() -> dict[str, Any]:
    schema: dict[str, Any] = orjson.loads(PATH.read_bytes())
    return schema
