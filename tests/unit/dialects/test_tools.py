"""`tools`, `tool_choice` and the fields they replaced: read, or refused at their place."""

from typing import Any

import pytest

from provider_core.errors import UnsupportedParameter
from provider_core.types import Tool, ToolChoice
from tests.unit.dialects.request_bodies import chat, refused_chat

SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}


def tool(name: str = "f", **function: Any) -> dict[str, Any]:
    """A tool as OpenAI's clients write it."""
    return {"type": "function", "function": {"name": name, **function}}


def allowed(mode: Any, *names: str) -> dict[str, Any]:
    """A choice among some tools."""
    return {
        "type": "allowed_tools",
        "allowed_tools": {"mode": mode, "tools": [tool(name) for name in names]},
    }


def test_a_tool_is_read_whole() -> None:
    """Name, description, parameters and strictness, and where they stood."""
    given = [tool("a", description="d", parameters=SCHEMA, strict=True), tool("b", strict=None)]
    assert chat(tools=given).tools == (
        Tool(
            name="a",
            description="d",
            parameters=SCHEMA,
            strict=True,
            param="tools[0].function.parameters",
        ),
        Tool(name="b", param="tools[1].function.parameters"),
    )
    assert chat(tools=given[:1]).tools[0].definition == tool(
        "a", description="d", parameters=SCHEMA
    )


@pytest.mark.parametrize(
    ("given", "param"),
    [
        ("f", "tools"),
        ([5], "tools[0]"),
        ([{}], "tools[0].type"),
        ([{"type": 5}], "tools[0].type"),
        ([{"type": "function"}], "tools[0].function"),
        ([{"type": "function", "name": "f"}], "tools[0].function"),
        ([tool(), {"type": "function", "function": {}}], "tools[1].function.name"),
        ([tool(description=5)], "tools[0].function.description"),
        ([tool(parameters="{}")], "tools[0].function.parameters"),
        ([tool(parameters={"type": "string"})], "tools[0].function.parameters"),
        ([tool(strict="yes")], "tools[0].function.strict"),
    ],
)
def test_bug_10_a_malformed_tool_is_refused_at_its_place(given: Any, param: str) -> None:
    """BUG-10: a client's mistake is a 400 that names it."""
    error = refused_chat(tools=given)
    assert (error.status, error.param) == (400, param)


@pytest.mark.parametrize("name", ["", "a b", "x" * 65, "naïve", "a\n", "a.b", "a\0", 5, None])
def test_s8_names_have_64_characters_of_a_few_kinds(name: Any) -> None:
    """S8, J10: everything else is refused."""
    assert refused_chat(tools=[tool(name)]).param == "tools[0].function.name"


def test_s8_at_most_128_tools_of_different_names() -> None:
    """S8: 128 pass, 129 do not, nor does a name that comes twice."""
    tools = [tool(f"f{i}") for i in range(129)]
    assert len(chat(tools=tools[:128]).tools) == 128
    assert refused_chat(tools=tools).param == "tools"
    error = refused_chat(tools=[tool("a"), tool("b"), tool("a")])
    assert (error.param, "'a'" in error.message) == ("tools[2].function.name", True)


@pytest.mark.parametrize("kind", ["custom", "web_search", "openrouter:web_search"])
def test_tools_that_are_no_functions_are_not_served(kind: str) -> None:
    """The model could not call them."""
    for error in (
        refused_chat(tools=[{"type": kind, kind: {"name": "f"}}]),
        refused_chat(tools=[tool()], tool_choice={"type": kind, kind: {"name": "f"}}),
    ):
        assert isinstance(error, UnsupportedParameter)
        assert error.param in {"tools[0].type", "tool_choice.type"}


@pytest.mark.parametrize(
    ("given", "choice"),
    [
        (None, ToolChoice(mode="auto")),
        ("auto", ToolChoice(mode="auto")),
        ("none", ToolChoice(mode="none")),
        ("required", ToolChoice(mode="required")),
        (tool("b"), ToolChoice(mode="required", names=("b",), is_named=True)),
        (allowed("auto", "a"), ToolChoice(mode="auto", names=("a",))),
        (allowed("required", "b", "a", "b"), ToolChoice(mode="required", names=("b", "a"))),
    ],
)
def test_every_form_of_choice(given: Any, choice: ToolChoice) -> None:
    """Words, one function, or some of them."""
    assert chat(tools=[tool("a"), tool("b")], tool_choice=given).tool_choice == choice


def test_without_tools_nothing_is_called() -> None:
    """The default is `none`, and the words that call nothing are accepted."""
    asks_nothing: list[dict[str, Any]] = [{}, {"tools": []}, {"tool_choice": "auto"}]
    for fields in (*asks_nothing, {"tool_choice": "none"}):
        assert chat(**fields).tool_choice == ToolChoice(mode="none")
        assert chat(**fields).tools == ()


@pytest.mark.parametrize(
    ("given", "param"),
    [
        ("always", "tool_choice"),
        (5, "tool_choice"),
        ({}, "tool_choice.type"),
        ({"type": "function"}, "tool_choice.function"),
        ({"type": "function", "name": "a"}, "tool_choice.function"),
        (tool("c"), "tool_choice.function.name"),
        ({"type": "allowed_tools"}, "tool_choice.allowed_tools"),
        (allowed("none", "a"), "tool_choice.allowed_tools.mode"),
        (allowed([], "a"), "tool_choice.allowed_tools.mode"),
        (allowed("auto"), "tool_choice.allowed_tools.tools"),
        (allowed("auto", "a", "c"), "tool_choice.allowed_tools.tools[1].name"),
    ],
)
def test_s8_a_choice_that_cannot_be_made_is_refused(given: Any, param: str) -> None:
    """S8: an unknown word or name is a 400 that names it."""
    error = refused_chat(tools=[tool("a")], tool_choice=given)
    assert (error.status, error.param) == (400, param)


def test_s8_a_call_needs_something_to_call() -> None:
    """`required`, or a name, without tools."""
    assert refused_chat(tool_choice="required").param == "tool_choice"
    assert refused_chat(tool_choice=tool("a")).param == "tool_choice.function.name"


def test_parallel_calls_are_the_default() -> None:
    """Only `false` asks for one call at most."""
    assert [
        chat(tools=[tool()], parallel_tool_calls=given).parallel_tool_calls
        for given in (None, True, False)
    ] == [True, True, False]


def test_functions_are_the_old_name_of_tools() -> None:
    """One call at most, and answers in the old form."""
    functions = [{"name": "f", "description": "d", "parameters": SCHEMA}]
    parsed = chat(functions=functions)
    assert parsed.tools == (
        Tool(name="f", description="d", parameters=SCHEMA, param="functions[0].parameters"),
    )
    assert parsed.has_functions
    assert not parsed.parallel_tool_calls
    assert not chat(tools=[tool()]).has_functions
    choices = [
        chat(functions=functions, function_call=given).tool_choice
        for given in (None, "none", "auto", {"name": "f"})
    ]
    named = ToolChoice(mode="required", names=("f",), is_named=True)
    assert choices == [ToolChoice(), ToolChoice(mode="none"), ToolChoice(), named]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"functions": "f"}, "functions"),
        ({"functions": [{}]}, "functions[0].name"),
        ({"functions": [{"name": f"f{i}"} for i in range(129)]}, "functions"),
        ({"functions": [{"name": "f"}] * 2}, "functions[1].name"),
        ({"functions": [{"name": "f"}], "function_call": "required"}, "function_call"),
        ({"functions": [{"name": "f"}], "function_call": {"name": "g"}}, "function_call.name"),
        ({"functions": [{"name": "f"}], "function_call": 5}, "function_call"),
        ({"function_call": {"name": "f"}}, "function_call.name"),
        ({"functions": [{"name": "f"}], "tools": [tool()]}, "functions"),
        ({"functions": [{"name": "f"}], "tool_choice": "auto"}, "functions"),
    ],
)
def test_malformed_functions_are_refused(fields: dict[str, Any], param: str) -> None:
    """As strict as for tools, and never beside them."""
    assert refused_chat(**fields).param == param
