"""The JSON Schema of the usage log's lines, in the package so that whoever reads a log has it."""

from functools import cache
from pathlib import Path

import jsonschema_rs
import orjson

PATH = Path(__file__).with_name("usage-1.0.json")
"""Of `llm-usage/1.0`: finals, adjustments and heartbeats."""


@cache
def validator() -> jsonschema_rs.Validator:
    """Judges one line, parsed; compiled on first use."""
    return jsonschema_rs.validator_for(orjson.loads(PATH.read_bytes()))
