"""Parsers of calls, all families: any cut of a reply, any arguments, any nonsense."""

import json
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from provider_core.text.tool_parsers import TOOL_FAMILIES, deepseek, mistral
from provider_core.tool_calling import (
    CallArguments,
    CallEnd,
    CallStart,
    ToolParser,
    ToolPiece,
    ToolSyntax,
)
from provider_core.types import Tool

TOOLS = [Tool(name="get_weather"), Tool(name="f")]
PARSERS: dict[str, ToolParser] = {
    name: family.make(TOOLS) for name, family in TOOL_FAMILIES.items()
}
BARE = {"llama3", "generic"}  # calls without markup
FRAMED = {"gpt_oss"}  # whose headers are dropped, not shown, where they are no call's
JSON_FAMILIES = [
    name
    for name, parser in PARSERS.items()
    if name not in FRAMED and parser.syntax and parser.syntax.arguments == "json"
]

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
ARGUMENTS = st.dictionaries(st.text(), JSON, max_size=4)


def read(parser: ToolParser, text: str, sizes: Sequence[int] = (1,)) -> list[ToolPiece]:
    """All pieces of a reply that arrives in pieces of these sizes, over and over; joined."""
    stream = parser.start()
    pieces: list[ToolPiece] = []
    begin = i = 0
    while begin < len(text):
        size = sizes[i % len(sizes)]
        pieces += stream.feed(text[begin : begin + size])
        begin += size
        i += 1
    assert stream.num_held <= len(text)
    return join([*pieces, *stream.flush()])


def join(pieces: Sequence[ToolPiece]) -> list[ToolPiece]:
    """Neighbours of one kind made one."""
    joined: list[ToolPiece] = []
    for piece in pieces:
        match joined[-1] if joined else None, piece:
            case str(before), str():
                joined[-1] = before + piece
            case CallArguments(before), CallArguments(text):
                joined[-1] = CallArguments(before + text)
            case _:
                joined.append(piece)
    return joined


def spelled(syntax: ToolSyntax, calls: Sequence[tuple[str, str]]) -> str:
    """Calls as a family writes them."""
    texts = [
        syntax.before_name + name + syntax.after_name + arguments + syntax.after_arguments
        for name, arguments in calls
    ]
    return syntax.begin + syntax.separator.join(texts) + syntax.end


def call(name: str, arguments: str) -> list[ToolPiece]:
    """A whole call."""
    return [CallStart(name), CallArguments(arguments), CallEnd()]


@pytest.mark.parametrize("family", JSON_FAMILIES)
@settings(deadline=None, max_examples=40)
@given(
    arguments=st.lists(ARGUMENTS, min_size=1, max_size=3),
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=5),
    is_ascii=st.booleans(),
)
def test_bug_28_every_family_is_read_as_it_spells(
    family: str,
    arguments: list[dict[str, object]],
    sizes: list[int],
    is_ascii: bool,  # noqa: FBT001 - drawn by hypothesis
) -> None:
    """Arguments come out as they were written, whatever they hold and however they were cut."""
    syntax = PARSERS[family].syntax
    assert syntax
    written = [json.dumps(each, ensure_ascii=is_ascii) for each in arguments]
    text = spelled(syntax, [("get_weather", each) for each in written])
    expected = [piece for each in written for piece in call("get_weather", each)]
    assert read(PARSERS[family], text, sizes) == expected


@pytest.mark.parametrize("family", [name for name in JSON_FAMILIES if name not in BARE])
@pytest.mark.parametrize("size", [1, 3, 1000])
def test_bug_04_text_around_calls_is_kept_by_every_family(family: str, size: int) -> None:
    """And no markup is left of the calls."""
    syntax = PARSERS[family].syntax
    assert syntax
    block = spelled(syntax, [("f", "{}"), ("f", '{"a": 1}')])
    pieces = read(PARSERS[family], f"before {block} after", (size,))
    assert pieces == ["before ", *call("f", "{}"), *call("f", '{"a": 1}'), pieces[-1]]
    assert pieces[-1] in {" after", "after"}


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


@settings(deadline=None)
@given(
    text=st.text().filter(lambda text: "</parameter>" not in text),
    number=st.integers(),
    other=JSON.filter(lambda value: not isinstance(value, str)),
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=5),
)
def test_bug_28_elements_are_told_as_json(
    text: str, number: int, other: object, sizes: list[int]
) -> None:
    """Strings by the tool's schema, everything else as it stands."""
    written = (
        f"<tool_call>\n<function=f>\n<parameter=s>\n{text}\n</parameter>\n"
        f"<parameter=n>\n{number}\n</parameter>\n<parameter=o>\n{json.dumps(other)}\n</parameter>\n"
        "</function>\n</tool_call>\n<function=f>\n</function>"
    )
    parser = TOOL_FAMILIES["qwen3_coder"].make([QWEN_TOOL])
    whole = read(parser, written, (len(written),))
    assert read(parser, written, sizes) == whole
    start, arguments, *rest = whole
    assert start == CallStart("f")
    assert isinstance(arguments, CallArguments)
    assert json.loads(arguments.text) == {"s": text, "n": number, "o": other}
    assert rest == [CallEnd(), *call("f", "{}")]


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


def test_both_forms_of_mistral_are_read_by_either() -> None:
    """As above."""
    for parser, other in ((mistral.LISTED, mistral.NAMED), (mistral.NAMED, mistral.LISTED)):
        assert other.syntax
        text = spelled(other.syntax, [("get_weather", WEATHER), ("f", "{}")])
        assert read(parser, text) == TWO


def fragments(parser: ToolParser) -> st.SearchStrategy[str]:
    """Texts of markup, halves of markup, JSON and nothing in particular."""
    assert parser.syntax
    syntax = parser.syntax
    parts = {
        *syntax.control_tokens,
        *(part[: len(part) // 2] for part in syntax.control_tokens),
        *(syntax.begin, syntax.before_name, syntax.after_name, syntax.after_arguments),
        *(
            syntax.separator,
            syntax.end,
            "f",
            '"f"',
            "{}",
            '{"a": "\\"}',
            "null",
            "[",
            "]",
            "}",
            "{",
        ),
        *('"name": ', '"arguments": ', '"parameters": ', '"', "\\", " ", "\n", ",", "x"),
    }
    return st.lists(st.sampled_from(sorted(parts)), max_size=14).map("".join)


@pytest.mark.parametrize("family", PARSERS)
@settings(deadline=None, max_examples=80)
@given(data=st.data())
def test_bug_04_the_pieces_do_not_depend_on_the_cut(family: str, data: st.DataObject) -> None:
    """Of any text; nothing raises; calls are told in order, and content is of the text."""
    parser = PARSERS[family]
    text = data.draw(fragments(parser))
    whole = read(parser, text, (max(1, len(text)),))
    assert read(parser, text) == whole
    assert read(parser, text, data.draw(st.lists(st.integers(1, 9), min_size=1))) == whole
    is_in_call = False
    for piece in whole:
        match piece:
            case str():
                assert family in FRAMED or piece in text
            case CallStart():
                is_in_call = True
            case _:
                assert is_in_call
    if family not in FRAMED and not any(isinstance(piece, CallStart) for piece in whole):
        assert "".join(piece for piece in whole if isinstance(piece, str)) == text


@pytest.mark.parametrize("family", PARSERS)
@pytest.mark.parametrize("size", [7, 10_000])
@pytest.mark.parametrize("tail", ["[", "{", '"', "<", " ", "\\", '{"a":', "[TOOL_CALLS]", "{}"])
def test_t9_no_text_takes_more_than_linear_time(family: str, size: int, tail: str) -> None:
    """Long nonsense in every place; the suite's time limit ends what is not linear."""
    syntax = PARSERS[family].syntax
    assert syntax
    opening = syntax.begin + syntax.before_name
    for start in ("", opening, f"{opening}f", f"{opening}f{syntax.after_name}"):
        read(PARSERS[family], start + tail * (10_000 // len(tail)), (size,))
    read(PARSERS[family], opening * (10_000 // len(opening)), (size,))


def test_t8_code_in_arguments_is_text() -> None:
    """Nothing is evaluated."""
    code = "__import__('os').system('true')"
    text = f'<tool_call>{{"name": "f", "arguments": {{"a": {code}}}}}</tool_call>'
    assert read(PARSERS["hermes"], text) == call("f", f'{{"a": {code}}}')


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{{ tools }}<tool_call>", "hermes"),
        ("{{ tools }}<start_function_call>", "function_gemma"),
        ("{{ tools }}<|tool_call>call:", "gemma4"),
        ("{{ tools }}<|channel|>analysis<|message|>", "gpt_oss"),
        ("{{ tools }}<tool_call><function=", "qwen3_coder"),
        ("{{ tools }} Environment: ipython", "llama3"),
        ("{{ tools }}[TOOL_CALLS]", "mistral"),
        ("{{ tools }}[TOOL_CALLS][ARGS]", "mistral_args"),
        ("message['tools'] <|tool|><|/tool|>", "phi4"),
        ("{{ tools }}<|tool_call|>", "granite"),
        ("{{ tools }}<\uff5ctool\u2581sep\uff5c>", "deepseek_v31"),
        ("{{ tools }}<\uff5ctool\u2581sep\uff5c>\n```json", "deepseek_v3"),
        ("{{ tools }}", "generic"),
    ],
)
def test_a_template_shows_its_family(template: str, expected: str) -> None:
    """By the markup that it writes."""
    found = next(family for family in TOOL_FAMILIES.values() if family.shows_in(template))
    assert found.name == expected


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
            f"<|start|>assistant to=functions.f<|channel|>commentary json<|message|>{WEATHER}",
            call("f", WEATHER),
        ),
        (
            f"<|channel|>commentary<|message|>Let me see.<|end|><|start|>assistant{TO_WEATHER}{{}}",
            ["Let me see.", *call("get_weather", "{}")],
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
