"""Fields that say what the text has to be: read into one constraint, or refused at their place."""

from typing import Any

import orjson
import pytest

from provider_core.dialects.openai.constraints import MAX_CHOICES
from provider_core.errors import UnsupportedParameter
from provider_core.types import Constraint
from tests.unit.dialects.request_bodies import chat, refused_chat

SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}
SCHEMA_TEXT = orjson.dumps(SCHEMA).decode()


def json_schema(**fields: Any) -> dict[str, Any]:
    """A response format with a schema."""
    return {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA, **fields}}


def test_a_schema_is_handed_on_with_its_place() -> None:
    """Errors of the compiler name the schema's field."""
    for strict in (None, False, True):
        assert chat(response_format=json_schema(strict=strict)).response_format == Constraint(
            kind="json_schema",
            source=SCHEMA_TEXT,
            param="response_format.json_schema.schema",
            strict=bool(strict),
        )


@pytest.mark.parametrize("fields", [{}, {"response_format": {"type": "text"}}])
def test_text_is_free(fields: dict[str, Any]) -> None:
    """The default."""
    assert chat(**fields).response_format is None


@pytest.mark.parametrize(
    ("fields", "kind", "source", "param"),
    [
        ({"response_format": {"type": "json_object"}}, "json_object", "", "response_format"),
        (
            {"response_format": {"type": "grammar", "grammar": "start: A"}},
            "lark",
            "start: A",
            "response_format.grammar",
        ),
        ({"structured_outputs": {"json": SCHEMA}}, "json_schema", SCHEMA_TEXT, "json"),
        ({"structured_outputs": {"json": SCHEMA_TEXT}}, "json_schema", SCHEMA_TEXT, "json"),
        ({"structured_outputs": {"json_object": True}}, "json_object", "", "json_object"),
        ({"structured_outputs": {"regex": "a+"}}, "regex", "a+", "regex"),
        ({"structured_outputs": {"choice": ["a", "b"]}}, "choice", '["a","b"]', "choice"),
        ({"structured_outputs": {"grammar": "start: A"}}, "lark", "start: A", "grammar"),
        ({"guided_json": SCHEMA}, "json_schema", SCHEMA_TEXT, "guided_json"),
        ({"guided_regex": "a+"}, "regex", "a+", "guided_regex"),
        ({"guided_choice": ["a"]}, "choice", '["a"]', "guided_choice"),
        ({"guided_grammar": "start: A"}, "lark", "start: A", "guided_grammar"),
    ],
)
def test_every_way_to_say_it(fields: dict[str, Any], kind: Any, source: str, param: str) -> None:
    """OpenAI's, OpenRouter's and vLLM's names end in the same value."""
    if "structured_outputs" in fields:
        param = f"structured_outputs.{param}"
    assert chat(**fields).response_format == Constraint(kind=kind, source=source, param=param)


@pytest.mark.parametrize(
    ("given", "param"),
    [
        ("json", "response_format"),
        ({}, "response_format.type"),
        ({"type": 5}, "response_format.type"),
        ({"type": "xml"}, "response_format.type"),
        ({"type": "python"}, "response_format.type"),
        ({"type": "grammar"}, "response_format.grammar"),
        ({"type": "grammar", "grammar": ""}, "response_format.grammar"),
        ({"type": "json_schema"}, "response_format.json_schema"),
        ({"type": "json_schema", "schema": SCHEMA}, "response_format.json_schema"),
        ({"type": "json_schema", "json_schema": SCHEMA}, "response_format.json_schema.name"),
        (json_schema(name="a b"), "response_format.json_schema.name"),
        (json_schema(schema=None), "response_format.json_schema.schema"),
        (json_schema(schema="{}"), "response_format.json_schema.schema"),
        (json_schema(strict="yes"), "response_format.json_schema.strict"),
        (json_schema(description=5), "response_format.json_schema.description"),
    ],
)
def test_bug_10_a_malformed_format_is_refused_at_its_place(given: Any, param: str) -> None:
    """BUG-10: a 400 before anything is generated, with the field that is wrong."""
    error = refused_chat(response_format=given)
    assert (error.status, error.param) == (400, param)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"guided_json": "{"}, "guided_json"),
        ({"guided_json": "[]"}, "guided_json"),
        ({"guided_json": 5}, "guided_json"),
        ({"guided_regex": ""}, "guided_regex"),
        ({"guided_regex": 5}, "guided_regex"),
        ({"guided_choice": "a"}, "guided_choice"),
        ({"guided_choice": []}, "guided_choice"),
        ({"guided_choice": ["a", 5]}, "guided_choice[1]"),
        ({"guided_choice": ["a", ""]}, "guided_choice[1]"),
        ({"guided_choice": ["a"] * (MAX_CHOICES + 1)}, "guided_choice"),
        ({"structured_outputs": []}, "structured_outputs"),
        ({"structured_outputs": {"json": SCHEMA, "regex": "a"}}, "structured_outputs"),
        ({"structured_outputs": {"json_object": 1}}, "structured_outputs.json_object"),
        ({"structured_outputs": {"backend": "x"}}, "structured_outputs.backend"),
    ],
)
def test_s6_malformed_constraints_are_refused(fields: dict[str, Any], param: str) -> None:
    """S6: an empty choice, an empty grammar, a schema that is none."""
    assert refused_chat(**fields).param == param


def test_s6_two_constraints_are_one_too_many() -> None:
    """S6: whichever fields they come from; the second is named, with the first."""
    error = refused_chat(response_format=json_schema(), guided_regex="a+")
    assert error.param == "guided_regex"
    assert "response_format" in error.message
    error = refused_chat(guided_regex="a", structured_outputs={"choice": ["a"]})
    assert error.param == "guided_regex"


def test_what_asks_for_nothing_is_accepted() -> None:
    """Empty and false values constrain nothing."""
    empty = {"json": None, "json_object": False, "disable_any_whitespace": False}
    assert chat(structured_outputs=empty) == chat(guided_json=None) == chat()


def test_unserved_forms_say_so() -> None:
    """Known elsewhere, not here."""
    refused = refused_chat(response_format={"type": "python"})
    assert isinstance(refused, UnsupportedParameter)
    refused = refused_chat(structured_outputs={"structural_tag": "x"})
    assert isinstance(refused, UnsupportedParameter)
