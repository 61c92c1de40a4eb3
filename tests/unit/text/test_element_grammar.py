"""Arguments as elements between tags: what their grammar and their parser agree upon."""

import json
from dataclasses import replace
from typing import Any

import pytest

from provider_core.errors import InvalidRequest
from provider_core.text.grammar_compiler import GrammarFactory
from provider_core.text.tool_grammar import tool_constraint
from provider_core.text.tool_parsers import TOOL_FAMILIES
from provider_core.types import Tool
from tests.unit.text.byte_tokenizer import END, ByteTokenizer
from tests.unit.text.call_reading import ELEMENTS, call, element_call, read, syntax_of
from tests.unit.text.writing import reads

FACTORY = GrammarFactory(ByteTokenizer(), frozenset({END}))


def test_a_strict_tool_whose_elements_cannot_be_enforced_is_refused() -> None:
    """A text's form is not, between tags."""
    parameters = {"properties": {"a": {"type": "string", "pattern": "^x$"}}}
    tool = Tool(name="g", parameters=parameters, strict=True, param="p")
    with pytest.raises(InvalidRequest) as caught:
        tool_constraint(syntax_of("qwen3_coder"), [tool], control_tokens={})
    assert caught.value.param == "p/properties/a"


@pytest.mark.parametrize("family", ELEMENTS)
@pytest.mark.parametrize(
    ("schema", "place"),
    [({"type": "string", "enum": 5}, "/enum"), ({"type": "string", "not": {}}, "/not")],
)
def test_texts_in_elements_have_good_schemas(
    family: str, schema: dict[str, Any], place: str
) -> None:
    """If the tool is strict; else any text will do."""
    for strict in (True, False):
        tool = Tool(name="g", parameters={"properties": {"a": schema}}, strict=strict, param="p")
        if strict:
            with pytest.raises(InvalidRequest) as caught:
                tool_constraint(syntax_of(family), [tool], control_tokens={})
            assert caught.value.param == f"p/properties/a{place}"
        else:
            FACTORY.compile(tool_constraint(syntax_of(family), [tool], control_tokens={}))


@pytest.mark.parametrize("family", ELEMENTS)
def test_texts_end_at_their_first_closing_tag(family: str) -> None:
    """For the grammar as for the parser, or the rest of a value would be content."""
    syntax = syntax_of(family)
    assert syntax.elements
    tag = syntax.elements.closing_tag
    for schema in ({"type": "string"}, {}):
        tool = Tool(name="get_weather", parameters={"properties": {"city": schema}})
        grammar = FACTORY.compile(tool_constraint(syntax, [tool], control_tokens={}))
        for value, expected in (("use <b> here", True), (f"use {tag} here", False)):
            text = element_call(family, city=value)
            assert reads(grammar, list(text.encode()), end=END) is expected


@pytest.mark.parametrize("family", ELEMENTS)
def test_closing_tags_in_json_strings_are_text(family: str) -> None:
    """Where the schema asks for JSON, its strings are read as such."""
    syntax = syntax_of(family)
    assert syntax.elements
    value = json.dumps(["\\", f'a "{syntax.elements.closing_tag}', "b"])
    items = {"type": "array", "items": {"type": "string"}}
    tools = [Tool(name="get_weather", parameters={"properties": {"city": items}})]
    text = element_call(family, city=value)
    grammar = FACTORY.compile(tool_constraint(syntax, tools, control_tokens={}))
    assert reads(grammar, list(text.encode()), end=END)
    arguments = f'{{"city": {value}}}'
    assert read(TOOL_FAMILIES[family].make(tools), text) == call("get_weather", arguments)


@pytest.mark.parametrize("family", ELEMENTS)
def test_listed_texts_that_hold_the_closing_tag_are_any_text(family: str) -> None:
    """They could not be read back; a strict tool is refused."""
    syntax = syntax_of(family)
    assert syntax.elements
    parameters = {"properties": {"city": {"enum": ["x", f"x{syntax.elements.closing_tag}y"]}}}
    tool = Tool(name="get_weather", parameters=parameters)
    grammar = FACTORY.compile(tool_constraint(syntax, [tool], control_tokens={}))
    assert reads(grammar, list(element_call(family, city="z").encode()), end=END)
    with pytest.raises(InvalidRequest) as caught:
        tool_constraint(syntax, [replace(tool, strict=True, param="p")], control_tokens={})
    assert caught.value.param == "p/properties/city"


@pytest.mark.parametrize("family", ELEMENTS)
@pytest.mark.parametrize("name", ["a></arg_key>b", "a\n", "a" * 2000])
def test_names_that_could_not_be_read_back_leave_arguments_free(family: str, name: str) -> None:
    """A strict tool is refused."""
    tool = Tool(name="get_weather", parameters={"properties": {name: {"type": "string"}}})
    grammar = FACTORY.compile(tool_constraint(syntax_of(family), [tool], control_tokens={}))
    assert reads(grammar, list(element_call(family, town="x").encode()), end=END)
    strict = replace(tool, strict=True, param="p")
    with pytest.raises(InvalidRequest) as caught:
        tool_constraint(syntax_of(family), [strict], control_tokens={})
    assert caught.value.param == f"p/properties/{name}"
