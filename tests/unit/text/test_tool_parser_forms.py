"""Parsers of calls, family by family: what models write beside the form they were asked for."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from provider_core.text.grammar_finiteness import TYPES
from provider_core.text.tool_parsers import TOOL_FAMILIES, deepseek, mistral
from provider_core.text.tool_parsers.argument_types import ArgumentTypes
from provider_core.tool_calling import CallArguments, CallEnd, CallStart, ToolPiece
from provider_core.types import Tool
from tests.unit.text.call_reading import (
    ELEMENTS,
    JSON,
    PARSERS,
    call,
    element_call,
    read,
    spelled,
    syntax_of,
)

WEATHER = '{"city": "Rome"}'
TWO = [*call("get_weather", WEATHER), *call("f", "{}")]


@pytest.mark.parametrize(
    ("family", "text", "expected"),
    [
        (
            "hermes",
            f'<tool_call>{{"arguments": {WEATHER}, "name": "get_weather"}}</tool_call>',
            call("get_weather", WEATHER),
        ),
        (
            "hermes",
            '<tool_call>\n{"name": "f", "arguments": "{\\"a\\": 1}"}\n</tool_call>',
            call("f", '{"a": 1}'),
        ),
        (
            "hermes",
            (
                f'<tool_call>[{{"name": "get_weather", "arguments": {WEATHER}}},\n'
                '{"name": "f"}]\n</tool_call>'
            ),
            TWO,
        ),
        ("hermes", "<tool_call>\nno call\n</tool_call>", ["<tool_call>\nno call\n</tool_call>"]),
        (
            "llama3",
            f'<|python_tag|>{{"name": "get_weather", "parameters": {WEATHER}}}',
            call("get_weather", WEATHER),
        ),
        (
            "llama3",
            (
                f' {{"type": "function", "name": "get_weather", "parameters": {WEATHER}}}; '
                '{"name": "f", "parameters": {}}'
            ),
            TWO,
        ),
        ("llama3", '{"name": "Bob", "age": 5}', ['{"name": "Bob", "age": 5}']),
        ("llama3", '[1, {"name": "Bob"}]', ['[1, {"name": "Bob"}]']),
        (
            "mistral",
            (
                f'[TOOL_CALLS] [{{"name": "get_weather", "arguments": {WEATHER}, '
                '"id": "abcdefghi"}, {"name": "f", "arguments": {}}]'
            ),
            TWO,
        ),
        (
            "mistral_args",
            f"Sure.[TOOL_CALLS]get_weather[CALL_ID]abcdefghi[ARGS]{WEATHER}[TOOL_CALLS]f[ARGS]{{}}",
            ["Sure.", *TWO],
        ),
        (
            "phi4",
            f'functools[{{"name": "get_weather", "arguments": {WEATHER}}}, {{"name": "f"}}]',
            TWO,
        ),
        (
            "granite",
            f'<|tool_call|> [{{"name": "get_weather", "arguments": {WEATHER}}}, {{"name": "f"}}]',
            TWO,
        ),
        (
            "generic",
            (
                f'```json\n{{"name": "get_weather", "parameters": {WEATHER}}}\n```\n'
                '```json\n{"name": "f"}\n```'
            ),
            TWO,
        ),
        ("generic", '```json\n{"a": 1}\n```', ['```json\n{"a": 1}\n```']),
    ],
)
@pytest.mark.parametrize("size", [1, 4, 1000])
def test_what_models_write_besides(
    family: str, text: str, expected: list[ToolPiece], size: int
) -> None:
    """Forms that are not the one that a grammar would make them write."""
    assert read(PARSERS[family], text, (size,)) == expected


QWEN_TOOL = Tool(
    name="f",
    parameters={
        "type": "object",
        "properties": {"s": {"type": "string"}, "n": {"type": "integer"}, "o": {}},
    },
)


@pytest.mark.parametrize("family", ["qwen3_coder", "seed", "glm"])
@settings(deadline=None, max_examples=60)
@given(
    text=st.text().filter(lambda text: "</" not in text),
    number=st.integers(),
    other=JSON.filter(lambda value: not isinstance(value, str)),
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=5),
)
def test_bug_28_elements_are_told_as_json(
    family: str, text: str, number: int, other: object, sizes: list[int]
) -> None:
    """Strings by the tool's schema, everything else as it stands."""
    parser = TOOL_FAMILIES[family].make([QWEN_TOOL])
    assert parser.syntax
    assert parser.syntax.elements
    elements = parser.syntax.elements
    arguments_text = "".join(
        f"{elements.before_key}{key}{elements.after_key}{value}{elements.after_value}"
        for key, value in (("s", f"\n{text}\n"), ("n", number), ("o", json.dumps(other)))
    )
    written = spelled(parser.syntax, [("f", arguments_text), ("f", "")])
    whole = read(parser, written, (len(written),))
    assert read(parser, written, sizes) == whole
    start, arguments, *rest = whole
    assert start == CallStart("f")
    assert isinstance(arguments, CallArguments)
    told = json.loads(arguments.text)
    assert told.pop("s").strip() == text.strip()
    assert told == {"n": number, "o": other}
    assert rest == [CallEnd(), *call("f", "{}")]


TEXT_OR_NULL = {"anyOf": [{"type": "string"}, {"type": "null"}]}


@pytest.mark.parametrize("family", ELEMENTS)
@pytest.mark.parametrize(
    ("schema", "written", "told"),
    [
        (TEXT_OR_NULL, "12345", '"12345"'),
        (TEXT_OR_NULL, '"12"', '"12"'),
        (TEXT_OR_NULL, "null", "null"),
        (TEXT_OR_NULL, "True", '"True"'),
        ({"oneOf": [{"type": "array"}, {"$ref": "#/$defs/t"}]}, "{}", '"{}"'),
        ({"oneOf": [{"type": "array"}, {"$ref": "#/$defs/t"}]}, "[]", "[]"),
        ({"$ref": "#/$defs/t"}, "007", '"007"'),
        ({"$ref": "#/$defs/t"}, "null", '"null"'),
        ({"$ref": "#/$defs/no"}, "12", "12"),
        ({"$ref": "#/$defs/itself"}, "12", "12"),
        ({"allOf": [{"$ref": "#/$defs/t"}], "description": "d"}, "true", '"true"'),
        ({"type": ["string", "null"]}, "true", '"true"'),
        ({"type": ["string", "number"]}, "1", "1"),
        ({"type": ["string", "integer"]}, "1.0", "1.0"),
        ({"type": ["string", "integer"]}, "1.5", '"1.5"'),
        ({"type": "integer"}, "true", "true"),
        ({"type": "boolean"}, "True", "true"),
    ],
)
def test_text_that_could_be_json_is_what_the_schema_allows(
    family: str, schema: dict[str, object], written: str, told: str
) -> None:
    """What is of a type that it does not allow is text, if that is allowed."""
    definitions = {"t": {"type": "string"}, "itself": {"$ref": "#/$defs/itself"}}
    parameters = {"properties": {"zip": schema}, "$defs": definitions}
    parser = TOOL_FAMILIES[family].make([Tool(name="get_weather", parameters=parameters)])
    text = element_call(family, zip=written)
    assert read(parser, text) == call("get_weather", f'{{"zip": {told}}}')


def test_references_are_followed_once_and_not_far() -> None:
    """However many ways lead to one target, and however long they are."""
    chain = {f"{i}": {"anyOf": [{"$ref": f"#/d/{i + 1}"}] * 2} for i in range(5000)}
    types = ArgumentTypes({"d": chain | {"near": {"$ref": "#/d/4990"}}})
    assert types.of({"$ref": "#/d/near"}) == TYPES
    assert types.of({"$ref": "#/d/0"}) == TYPES


@pytest.mark.parametrize("family", ELEMENTS)
def test_an_argument_that_is_written_twice_is_told_once(family: str) -> None:
    """The first counts: it was told before the second came."""
    syntax = syntax_of(family)
    assert syntax.elements
    elements = syntax.elements
    written = "".join(
        f"{elements.before_key}{name}{elements.after_key}{value}{elements.after_value}"
        for name, value in (("a", 1), ("a", 2), ("b", 3))
    )
    text = spelled(syntax, [("f", written)])
    assert read(PARSERS[family], text) == call("f", '{"a": 1, "b": 3}')


def gemma_of(value: object, quote: str) -> str:
    """A JSON value as Gemma writes it."""
    match value:
        case str():
            return f"{quote}{value}{quote}"
        case dict():
            return "{" + ",".join(f"{k}:{gemma_of(v, quote)}" for k, v in value.items()) + "}"
        case list():
            return "[" + ",".join(gemma_of(each, quote) for each in value) + "]"
    return json.dumps(value)


TEXT = st.text().filter(lambda text: "<" not in text)
NAME = st.from_regex(r"[a-z_]{1,9}", fullmatch=True)
SCALAR = st.none() | st.booleans() | st.integers() | st.floats(-1e9, 1e9) | TEXT


@pytest.mark.parametrize(("family", "quote"), [("function_gemma", "<escape>"), ("gemma4", '<|"|>')])
@settings(deadline=None, max_examples=60)
@given(
    arguments=st.dictionaries(
        NAME,
        st.recursive(
            SCALAR,
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAME, inner, max_size=3),
            max_leaves=6,
        ),
        max_size=3,
    ),
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=5),
)
def test_bug_28_gemmas_objects_are_told_as_json(
    family: str, quote: str, arguments: dict[str, object], sizes: list[int]
) -> None:
    """Strings between tags, keys without quotes."""
    syntax = PARSERS[family].syntax
    assert syntax
    written = gemma_of(arguments, quote).removeprefix("{")
    start, told, end = read(PARSERS[family], spelled(syntax, [("f", written)]), sizes)
    assert (start, end) == (CallStart("f"), CallEnd())
    assert isinstance(told, CallArguments)
    assert json.loads(told.text) == arguments


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_both_forms_of_deepseek_are_read_by_either(size: int) -> None:
    """The template does not always say which one the model was trained with."""
    for parser, other in ((deepseek.V3, deepseek.V31), (deepseek.V31, deepseek.V3)):
        assert other.syntax
        text = spelled(other.syntax, [("get_weather", WEATHER), ("f", "{}")])
        assert read(parser, text, (size,)) == TWO


@pytest.mark.parametrize("family", ["deepseek_v3", "deepseek_v31", "mistral_args"])
@pytest.mark.parametrize("size", [1, 7, 1000])
def test_a_call_without_arguments_ends_at_the_next_markup(family: str, size: int) -> None:
    """As if it were `{}`; what follows is read as ever."""
    text = spelled(syntax_of(family), [("f", ""), ("f", " "), ("get_weather", WEATHER)])
    expected = [*call("f", "{}"), *call("f", "{}"), *call("get_weather", WEATHER)]
    assert read(PARSERS[family], text, (size,)) == expected


def test_both_forms_of_mistral_are_read_by_either() -> None:
    """As above."""
    for parser, other in ((mistral.LISTED, mistral.NAMED), (mistral.NAMED, mistral.LISTED)):
        assert other.syntax
        text = spelled(other.syntax, [("get_weather", WEATHER), ("f", "{}")])
        assert read(parser, text) == TWO


FINAL = "<|channel|>final<|message|>"
TO_WEATHER = "<|channel|>commentary to=functions.get_weather <|constrain|>json<|message|>"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"{FINAL}It is sunny.", ["It is sunny."]),
        (f"{FINAL}It is sunny.<|return|>", ["It is sunny."]),
        (f"{TO_WEATHER}{WEATHER}<|call|>", call("get_weather", WEATHER)),
        (f"{TO_WEATHER}{WEATHER}", call("get_weather", WEATHER)),
        (
            f"{TO_WEATHER.replace('get_weather', 'maps.find-it:near')}{WEATHER}<|call|>",
            call("maps.find-it:near", WEATHER),
        ),
        (
            f"<|start|>assistant to=functions.f<|channel|>commentary json<|message|>{WEATHER}",
            call("f", WEATHER),
        ),
        (
            f"<|channel|>commentary<|message|>Let me see.<|end|><|start|>assistant{TO_WEATHER}{{}}",
            ["Let me see.", *call("get_weather", "{}")],
        ),
        (
            f"{TO_WEATHER}<|end|><|start|>assistant{FINAL}Yes<|return|>",
            [*call("get_weather", "{}"), "Yes"],
        ),
        (
            (
                "<|channel|>analysis<|message|>more thoughts<|end|>"
                f"<|start|>assistant{FINAL}Yes<|return|>"
            ),
            ["Yes"],
        ),
        ("<|channel|>fin", []),
        ("no frame", ["no frame"]),
    ],
)
@pytest.mark.parametrize("size", [1, 4, 1000])
def test_messages_on_channels(text: str, expected: list[ToolPiece], size: int) -> None:
    """Content is what stands on channels for people."""
    assert read(PARSERS["gpt_oss"], text, (size,)) == expected
