"""Compiled constraints: what they let through, what is refused, and in whose words."""

import json
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

from provider_core.errors import InvalidRequest
from provider_core.text.grammar import (
    MAX_SCHEMA_CHARACTERS,
    control_token,
    json_rule,
)
from provider_core.text.grammar_compiler import GrammarFactory
from provider_core.text.grammar_reasoning import AfterReasoning
from provider_core.text.tokenizer import load_tokenizer
from provider_core.types import Constraint, Grammar
from tests.unit.text.byte_tokenizer import CALL, END, THINK_END, WORDS, ByteTokenizer
from tests.unit.text.writing import allowed_ids, reads, write

_FACTORY = GrammarFactory(ByteTokenizer(), frozenset({END}))
_STARTER = Path(__file__).parents[3] / "plugins/provider_starter/model"
_CITY = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
    "required": ["city"],
    "additionalProperties": False,
}


def _compile(source: object, kind: Any = "json_schema", *, strict: bool = True) -> Grammar:
    text = source if isinstance(source, str) else json.dumps(source)
    return _FACTORY.compile(Constraint(kind=kind, source=text, param="schema", strict=strict))


def _reads(grammar: Grammar, text: str) -> bool:
    return reads(grammar, list(text.encode()), end=END)


def _refusal(source: object, kind: Any = "json_schema", *, strict: bool = True) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        _compile(source, kind, strict=strict)
    return caught.value


@pytest.mark.parametrize(
    "text",
    ['{"city":"Oslo"}', '{"city": "Oslo", "days": 3}', '{"city":"\u00d8 \\"\\n\\\\"}'],
)
def test_documents_of_the_schema_are_written(text: str) -> None:
    """Compact or with a space behind commas and colons, in any script."""
    assert _reads(_compile(_CITY), text)


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        '{"city":"Oslo"',
        '{"city":5}',
        '{"city":"Oslo","days":1.5}',
        '{"city":"Oslo","rain":1}',
        '{"city":"Oslo"} ',
        ' {"city":"Oslo"}',
        '{"city":  "Oslo"}',
        '{\n"city":"Oslo"}',
        '{"city":"\n"}',
        '{"city":"\\x"}',
    ],
)
def test_other_texts_are_not(text: str) -> None:
    """Nor white space that could go on."""
    assert not _reads(_compile(_CITY), text)


def test_a_number_is_one_for_every_reader() -> None:
    """Many read 1e999 as infinite, or not at all."""
    number = _compile({"type": "number"})
    assert _reads(number, "-12.5")
    assert not any(_reads(number, text) for text in ("1e999", "9" * 400))


def test_json_mode_is_any_object() -> None:
    """And nothing but an object."""
    grammar = _compile("", "json_object")
    assert _reads(grammar, '{"a": [1, null, {"b": true}]}')
    assert not _reads(grammar, "[1]")


def test_a_choice_is_one_of_its_texts() -> None:
    """Whatever characters they have."""
    texts = ["yes", "yes, sir", 'a "b"\n\\', "\u20ac/<|im_end|>"]
    grammar = _compile(texts, "choice")
    assert all(_reads(grammar, text) for text in texts)
    assert not any(_reads(grammar, text) for text in ("", "ye", "yes,", "no"))


def test_a_regex_is_of_the_whole_text() -> None:
    """With or without anchors, slashes and all."""
    grammar = _compile(r"[a-z]+/\d{2}", "regex")
    assert _reads(grammar, "ab/12")
    assert not _reads(grammar, "ab/123")
    assert _reads(_compile(r"^a$", "regex"), "a")


def test_a_lark_grammar_is_taken_as_it_is() -> None:
    """Rules, terminals and all."""
    grammar = _compile('start: "<" NAME ">"\nNAME: /[a-z]+/', "lark")
    assert _reads(grammar, "<b>")
    assert not _reads(grammar, "<1>")


def test_control_tokens_are_no_text() -> None:
    """A string may spell one, and never is one."""
    grammar = _compile({"type": "string"})
    matcher = grammar.start()
    mask = np.zeros(9, dtype=np.int32)
    matcher.fill_bitmask(mask)
    assert matcher.accept(ord('"'))
    matcher.fill_bitmask(mask)
    assert not {END, THINK_END, CALL} & set(allowed_ids(mask))
    assert _reads(grammar, '"<|im_end|>"')
    spelled = 259 + WORDS.index(b"<|im_end|>")
    assert reads(grammar, [ord('"'), spelled, ord('"')], end=END)


def test_characters_are_never_cut() -> None:
    """A token may hold a part of one, if the next holds the rest."""
    grammar = _compile({"type": "string"})
    part = 259 + WORDS.index(b"\xe2\x82")
    assert reads(grammar, [ord('"'), part, 0xAC, ord('"')], end=END)
    assert not reads(grammar, [ord('"'), part, ord('"')], end=END)


@pytest.mark.parametrize("num_words", [8, 9, 20])
def test_logits_may_be_wider_or_narrower_than_the_vocabulary(num_words: int) -> None:
    """Ids beyond it are never allowed."""
    wide, mask = np.full(9, -1, dtype=np.int32), np.full(num_words, -1, dtype=np.int32)
    grammar = _compile(_CITY)
    grammar.start().fill_bitmask(wide)
    grammar.start().fill_bitmask(mask)
    assert allowed_ids(wide) == [ord("{"), 259 + WORDS.index(b'{"')]
    assert allowed_ids(mask) == [i for i in allowed_ids(wide) if i < 32 * num_words]


def test_without_an_end_of_text_a_text_goes_on() -> None:
    """A tokenizer whose model has no eos still gets its documents."""
    factory = GrammarFactory(ByteTokenizer(), frozenset())
    grammar = factory.compile(Constraint(kind="choice", source='["ab"]'))
    matcher = grammar.start()
    assert [matcher.accept(byte) for byte in b"ab"] == [True, True]
    assert matcher.is_finished


def test_matchers_of_a_grammar_are_independent() -> None:
    """What one takes changes no other."""
    grammar = _compile(_CITY)
    first, second = grammar.start(), grammar.start()
    assert first.accept(ord("{"))
    assert not second.accept(ord('"'))


@pytest.mark.parametrize("seed", range(20))
def test_whatever_chance_writes_is_valid(seed: int) -> None:
    """Random ids, so that no habit of a model helps."""
    schema = {"type": "array", "items": _CITY, "minItems": 1, "maxItems": 2}
    text = write(_compile(schema), vocab_size=ByteTokenizer.vocab_size, end=END, seed=seed)
    if text is not None:
        document = json.loads(ByteTokenizer().decode(text))
        assert 1 <= len(document) <= 2
        assert all(set(item) - {"days"} == {"city"} for item in document)


# What is refused


def test_s1_a_malformed_schema_is_named() -> None:
    """The keyword and its place in the client's own field."""
    cases: list[tuple[object, str]] = [
        ({"type": "objekt"}, "/type"),
        ({"properties": {"a/b": {"type": "string", "pattern": "["}}}, "/properties/a~1b/pattern"),
        ({"items": {"pattern": 5}}, "/items/pattern"),
        ({"items": 5}, "/items"),
        ({"required": "a"}, "/required"),
        ({"minLength": -1}, "/minLength"),
        ({"minimum": "1"}, "/minimum"),
        ({"anyOf": []}, "/anyOf"),
        ({"properties": []}, "/properties"),
        ({"type": "string", "pattern": r"(?=a)b"}, "/pattern"),
        ({"type": "string", "pattern": r"(a)\1"}, "/pattern"),
        ({"$schema": "http://example.com/mine"}, "/$schema"),
        ([], ""),
        ("{", ""),
    ]
    for schema, place in cases:
        error = _refusal(schema)
        assert (error.code, error.param) == ("invalid_schema", f"schema{place}")


@pytest.mark.parametrize(
    "pattern", [r"(.{0,1000}){1000}", r"^(?:.*[aeiou].{0,200}){10}$", "a" * 2000]
)
@pytest.mark.parametrize("kind", ["json_schema", "regex"])
def test_s2_expressions_that_would_take_too_long_are_refused(
    pattern: str, kind: Literal["json_schema", "regex"]
) -> None:
    """Before a token is drawn, and not while it is."""
    source = (
        json.dumps({"type": "string", "pattern": pattern}) if kind == "json_schema" else pattern
    )
    factory = GrammarFactory(load_tokenizer(_STARTER), frozenset({0}))
    with pytest.raises(InvalidRequest) as caught:
        factory.compile(Constraint(kind=kind, source=source))
    assert caught.value.code == "schema_too_complex"


def test_s2_expressions_that_only_backtrack_badly_are_served() -> None:
    """Nothing here backtracks."""
    assert _reads(_compile(r"(a+)+b", "regex"), "a" * 100 + "b")


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "#"},
        {"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]},
        {"type": "array", "items": {"$ref": "#"}, "minItems": 1},
        {
            "$ref": "#/$defs/a",
            "$defs": {"a": {"allOf": [{"$ref": "#/$defs/b"}]}, "b": {"$ref": "#/$defs/a"}},
        },
    ],
)
def test_s3_schemas_without_an_end_are_refused(schema: object) -> None:
    """No document could be finished."""
    assert _refusal(schema).code == "invalid_schema"


def test_s3_recursion_that_ends_is_served() -> None:
    """Trees are."""
    node = {
        "type": "object",
        "properties": {"v": {"type": "integer"}, "c": {"items": {"$ref": "#"}, "type": "array"}},
        "required": ["v", "c"],
    }
    assert _reads(_compile(node), '{"v":1,"c":[{"v":2,"c":[]}]}')
    deep: dict[str, Any] = {}
    for _ in range(40):
        deep = {"items": deep}
    assert _refusal(deep).code == "schema_too_complex"
    assert _refusal('{"a":' * 10_000).code == "invalid_schema"


@pytest.mark.parametrize(
    "target",
    [
        *("http://169.254.169.254/latest", "file:///etc/passwd", "other.json", "#anchor"),
        *("#/$defs/no", "#/anyOf/1", pytest.param(f"#/anyOf/{'9' * 5000}", id="huge")),
    ],
)
def test_s4_references_leave_the_schema_never(target: str) -> None:
    """Nothing is fetched: what is not in the schema is not there."""
    error = _refusal({"anyOf": [{}], "properties": {"a": {"$ref": target}}})
    assert (error.code, error.param) == ("invalid_schema", "schema/properties/a/$ref")


def test_s6_nothing_to_choose_from_is_refused_and_an_empty_schema_is_any_json() -> None:
    """As the specification of JSON Schema says."""
    assert _refusal([], "choice").code == "invalid_schema"
    assert _refusal({"enum": []}).param == "schema/enum"
    assert _refusal("", "regex").code == "invalid_schema"
    assert _refusal({"allOf": [{"type": "string"}, {"type": "null"}]}).code == "invalid_schema"
    assert _reads(_compile({}), '[1, {"a": "b"}]')


@pytest.mark.parametrize(
    "schema",
    [
        {"enum": list(range(10**6))},
        {"properties": {f"p{i}": {} for i in range(10_000)}},
        {"type": "string", "description": "x" * 2**20},
        {"const": "x" * MAX_SCHEMA_CHARACTERS},
    ],
    ids=["enum", "properties", "description", "const"],
)
def test_s7_huge_schemas_are_refused(schema: object) -> None:
    """By their length, before anybody works on them."""
    assert _refusal(schema).code == "schema_too_complex"


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("not", {"type": "null"}),
        ("if", {}),
        ("contains", {"type": "null"}),
        ("uniqueItems", True),
        ("propertyNames", {"pattern": "^a"}),
        ("dependentRequired", {"a": ["b"]}),
        ("unevaluatedProperties", False),
        ("$dynamicRef", "#a"),
        ("minProperties", 2),
        ("oneOf", [{"type": "string"}, {"maxLength": 3}]),
        ("format", "idn-email"),
        ("patternProperties", {"^a": {"type": "null"}, "a$": {"type": "string"}}),
        ("enum", ["\u0001"]),
    ],
)
def test_what_cannot_be_enforced_is_named(keyword: str, value: object) -> None:
    """Rather than ignored, wherever it stands."""
    error = _refusal({"properties": {"deep": {"items": {keyword: value}}}})
    assert error.code == "invalid_schema"
    assert error.param is not None
    assert error.param.startswith(f"schema/properties/deep/items/{keyword}")
    assert keyword in error.message or keyword == "enum"


def test_annotations_and_what_says_nothing_are_ignored() -> None:
    """Descriptions, defaults, unknown words, and keywords with values that assert nothing."""
    schema = {
        "title": "T",
        "description": "D",
        "default": {},
        "examples": [1],
        "deprecated": True,
        "contentEncoding": "base64",
        "x-order": 3,
        "discriminator": {"propertyName": "kind"},
        "uniqueItems": False,
        "propertyNames": {"type": "string"},
        "then": {"type": "null"},
        "unevaluatedProperties": True,
        "type": "integer",
        "format": "int64",
    }
    assert _reads(_compile(schema), "42")


def test_an_unknown_format_is_an_annotation_unless_strict() -> None:
    """What is enforced stays so."""
    schema = {"type": "string", "format": "color", "maxLength": 3}
    grammar = _compile(schema, strict=False)
    assert _reads(grammar, '"red"')
    assert not _reads(grammar, '"blue"')
    assert _refusal(schema).param == "schema/format"


# Compositions


def test_bug_22_a_schema_binds_behind_the_reasoning() -> None:
    """Anything may be thought, no end of text comes before the answer, then the schema holds."""
    grammar = AfterReasoning(_compile(_CITY), [THINK_END], frozenset({END}))
    answer = list(b'{"city":"Oslo"}')
    thought = [*b"hm } \n", CALL, *b"\xff"]
    assert reads(grammar, [*thought, THINK_END, *answer], end=END)
    assert reads(grammar, [THINK_END, *answer], end=END)
    assert not reads(grammar, answer, end=END)
    assert not reads(grammar, thought, end=END)
    assert not reads(grammar, [*thought, THINK_END, *b"so: "], end=END)


def test_bug_22_the_reasonings_end_may_be_several_ids() -> None:
    """Each of them alone is a thought."""
    grammar = AfterReasoning(_compile(_CITY), list(b"</t>"), frozenset({END}))
    assert reads(grammar, list(b'a </ > </t{"city":"x"} </t>{"city":"Oslo"}'), end=END)


def test_tool_calls_between_free_text() -> None:
    """The form that a family's text markers need: free until the trigger, then bound."""
    call = json_rule(_CITY, param="tools[0].function.parameters")
    grammar = _compile(
        f'start: (trigger call "</call>")* TEXT\ntrigger[lazy]: TEXT "<call>"\n'
        f"TEXT: /(.|\\n)*/\ncall: {call}",
        "lark",
    )
    assert _reads(grammar, "No call.")
    assert _reads(grammar, 'I ask:\n<call>{"city":"Oslo"}</call> and <call>{"city":"Bern"}</call>')
    assert not _reads(grammar, "I ask: <call>Oslo</call>")
    assert not _reads(grammar, '<call>{"city":"Oslo"}')


def test_tool_calls_behind_a_control_token() -> None:
    """One or more, and nothing else."""
    call = json_rule(_CITY, param="tools[0].function.parameters")
    lark = f"start: ({control_token(CALL)} call)+\ncall: {call}"
    grammar = _compile(lark, "lark")
    oslo = list(b'{"city":"Oslo"}')
    assert reads(grammar, [CALL, *oslo, CALL, *oslo], end=END)
    assert not reads(grammar, oslo, end=END)
    assert not reads(grammar, [CALL, *oslo, *b" "], end=END)


def test_a_tools_schema_is_checked_where_its_rule_is_made() -> None:
    """And blamed on the tool."""
    with pytest.raises(InvalidRequest) as caught:
        json_rule({"properties": {"a": {"not": {}}}}, param="tools[3].function.parameters")
    assert caught.value.param == "tools[3].function.parameters/properties/a/not"
