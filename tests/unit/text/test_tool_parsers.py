"""Parsers of calls, all families: any cut of a reply, any arguments, any nonsense."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from provider_core.text.tool_parsers import TOOL_FAMILIES
from provider_core.tool_calling import CallStart, ToolParser
from tests.unit.text.call_reading import (
    ARGUMENTS,
    BARE,
    FRAMED,
    JSON_FAMILIES,
    PARSERS,
    call,
    read,
    spelled,
)


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
        ("{{ tools }}<tool_call><arg_key>", "glm"),
        ("{{ tools }}<seed:tool_call><function=", "seed"),
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
