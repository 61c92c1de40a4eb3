"""Grammars of calls: what they let a model write, and that a parser reads it as calls."""

import json
from collections.abc import Callable, Sequence
from typing import Any

import jsonschema_rs
import pytest
from tokenizers import AddedToken

from provider_core.errors import InvalidRequest
from provider_core.text.grammar_compiler import GrammarFactory
from provider_core.text.output_reader import find_control_tokens
from provider_core.text.tokenizer import FolderTokenizer
from provider_core.text.tool_grammar import arguments_schema, tool_constraint
from provider_core.text.tool_parsers import TOOL_FAMILIES, hermes
from provider_core.tool_calling import CallArguments, CallStart, ToolSyntax
from provider_core.types import Constraint, Tool
from tests.unit.text.byte_tokenizer import CALL, END, ByteTokenizer
from tests.unit.text.call_reading import (
    BARE,
    ELEMENTS,
    JSON_FAMILIES,
    PARSERS,
    element_call,
    read,
    spelled,
    syntax_of,
)
from tests.unit.text.generation_session import EOS
from tests.unit.text.tokenizer_folders import byte_level, served
from tests.unit.text.writing import reads, write

TOKENIZER = ByteTokenizer()
FACTORY = GrammarFactory(TOKENIZER, frozenset({END}))
CITY = {
    "type": "object",
    "properties": {
        "city": {"enum": ["Rome", "Oslo"]},
        "days": {"type": "integer", "minimum": 1, "maximum": 7},
        "units": {"type": "array", "items": {"type": "boolean"}, "maxItems": 2},
    },
    "required": ["city"],
}
TOOLS = [Tool(name="get_weather", parameters=CITY), Tool(name="f")]
ROME = '{"city": "Rome", "days": 3}'


def is_allowed(text: str, syntax: ToolSyntax, **options: Any) -> bool:
    """Whether a model may write exactly this."""
    constraint = tool_constraint(syntax, TOOLS, **{"control_tokens": {}, **options})
    return reads(FACTORY.compile(constraint), list(text.encode()), end=END)


@pytest.mark.parametrize("family", JSON_FAMILIES)
@pytest.mark.parametrize("must_call", [False, True])
def test_what_a_family_spells_may_be_written(family: str, must_call: bool) -> None:  # noqa: FBT001 - a parameter
    """One call or several; with text before them if the model may choose."""
    syntax = syntax_of(family)
    one = spelled(syntax, [("get_weather", ROME)])
    two = spelled(syntax, [("f", "{}"), ("get_weather", ROME)])
    before = "" if must_call or family in BARE else "let me see: "
    assert is_allowed(before + one, syntax, must_call=must_call)
    assert is_allowed(before + two, syntax, must_call=must_call)
    assert not is_allowed(before + two, syntax, must_call=must_call, is_single=True)
    assert is_allowed("no call at all", syntax, must_call=must_call) is not must_call
    assert not is_allowed(one + " and more", syntax, must_call=must_call)


@pytest.mark.parametrize("family", JSON_FAMILIES)
@pytest.mark.parametrize("must_call", [False, True])
def test_calls_that_do_not_conform_cannot_be_written(family: str, must_call: bool) -> None:  # noqa: FBT001 - a parameter
    """Once a call is open: neither other names nor other arguments."""
    syntax = syntax_of(family)
    for arguments in ("{}", '{"city": "Paris"}', '{"city": "Rome", "town": 1}', '{"city": "Rome"'):
        text = spelled(syntax, [("get_weather", arguments)])
        assert not is_allowed(text, syntax, must_call=must_call)
    if must_call or family not in BARE:
        assert not is_allowed(spelled(syntax, [("g", "{}")]), syntax, must_call=must_call)


@pytest.mark.parametrize("family", JSON_FAMILIES)
@pytest.mark.parametrize("seed", range(4))
def test_whatever_a_random_model_writes_is_a_valid_call(family: str, seed: int) -> None:
    """Draft 7 has the last word."""
    constraint = tool_constraint(syntax_of(family), TOOLS, control_tokens={}, must_call=True)
    ids = write(
        FACTORY.compile(constraint),
        vocab_size=TOKENIZER.vocab_size,
        end=END,
        seed=seed,
        max_tokens=5000,
    )
    assert ids is not None
    pieces = read(PARSERS[family], TOKENIZER.decode(ids))
    names = [piece.name for piece in pieces if isinstance(piece, CallStart)]
    arguments = [piece.text for piece in pieces if isinstance(piece, CallArguments)]
    assert names
    assert len(names) == len(arguments)
    assert not any(isinstance(piece, str) for piece in pieces)
    schemas = {tool.name: dict(tool.parameters or {}) for tool in TOOLS}
    for name, each in zip(names, arguments, strict=True):
        jsonschema_rs.validate(schemas[name], json.loads(each), draft=jsonschema_rs.Draft7)


def test_control_tokens_open_calls_as_text_does() -> None:
    """As one id, which no text can be mistaken for."""
    syntax = hermes.PARSER.syntax
    assert syntax
    constraint = tool_constraint(syntax, TOOLS, control_tokens={CALL: "<tool_call>"})
    grammar = FACTORY.compile(constraint)
    behind = b'\n{"name": "f", "arguments": {}}\n</tool_call>'
    assert reads(grammar, [*b"hm ", CALL, *behind], end=END)
    assert not reads(grammar, [*b"hm ", CALL, *b"hm"], end=END)
    assert reads(grammar, [*b"hm <tool_call> is how one writes it"], end=END)


@pytest.mark.parametrize("family", JSON_FAMILIES)
def test_an_answer_is_the_document_or_calls(family: str) -> None:
    """Nothing else."""
    syntax = syntax_of(family)
    schema = json.dumps({"type": "object", "properties": {"a": {"const": 1}}, "required": ["a"]})
    answer = Constraint(kind="json_schema", source=schema)
    assert is_allowed('{"a": 1}', syntax, answer=answer)
    assert is_allowed(spelled(syntax, [("f", "{}")]), syntax, answer=answer)
    assert not is_allowed('{"a": 2}', syntax, answer=answer)
    assert not is_allowed("text", syntax, answer=answer)


def test_an_answer_may_be_of_other_kinds() -> None:
    """But no grammar, which cannot be taken apart."""
    syntax = syntax_of("hermes")
    assert is_allowed("yes", syntax, answer=Constraint(kind="choice", source='["yes", "no"]'))
    assert is_allowed("ab", syntax, answer=Constraint(kind="regex", source="a[b/]"))
    with pytest.raises(InvalidRequest) as caught:
        is_allowed("x", syntax, answer=Constraint(kind="lark", source='start: "x"', param="g"))
    assert caught.value.param == "g"


@pytest.mark.parametrize("family", ELEMENTS)
def test_elements_conform_to_their_schemas(family: str) -> None:
    """Required ones are there, in order, and each is of its type."""
    syntax = syntax_of(family)
    assert is_allowed("hm " + element_call(family, city="Rome"), syntax)
    whole = element_call(family, city="Oslo", days="7", units="[true]")
    assert is_allowed(whole, syntax, must_call=True)
    assert is_allowed(spelled(syntax, [("f", "")]), syntax)
    for wrong in ({"city": "Paris"}, {"days": "3"}, {"city": "Rome", "days": "9"}, {}):
        assert not is_allowed(element_call(family, **wrong), syntax)
    assert not is_allowed(element_call(family, city="Rome", town="x"), syntax)


@pytest.mark.parametrize("family", ELEMENTS)
@pytest.mark.parametrize("is_special", [True, False])
def test_elements_of_text_are_free(family: str, is_special: bool) -> None:  # noqa: FBT001 - a parameter
    """Quotes, line breaks and other tags too."""
    syntax = syntax_of(family)
    tokenizer = tokenizer_with(syntax.control_tokens if is_special else ())
    control_tokens = find_control_tokens(tokenizer, syntax.control_tokens)
    properties = {"city": {"type": "string"}, "x": {}}
    tool = Tool(name="get_weather", parameters={"properties": properties})
    grammar = GrammarFactory(tokenizer, frozenset({EOS})).compile(
        tool_constraint(syntax, [tool], control_tokens=control_tokens)
    )
    text = element_call(family, city='<b>\n"1', x="[x]")
    assert reads(grammar, tokenizer.encode(text, allow_special=True), end=EOS)


@pytest.mark.parametrize("family", ELEMENTS)
@pytest.mark.parametrize("seed", range(4))
def test_whatever_elements_a_random_model_writes_are_valid(family: str, seed: int) -> None:
    """Draft 7 has the last word."""
    constraint = tool_constraint(
        syntax_of(family), TOOLS, control_tokens={}, must_call=True, is_single=True
    )
    ids = write(FACTORY.compile(constraint), vocab_size=TOKENIZER.vocab_size, end=END, seed=seed)
    assert ids is not None
    start, arguments, _ = read(TOOL_FAMILIES[family].make(TOOLS), TOKENIZER.decode(ids))
    assert isinstance(start, CallStart)
    assert isinstance(arguments, CallArguments)
    schemas = {tool.name: dict(tool.parameters or {}) for tool in TOOLS}
    jsonschema_rs.validate(
        schemas[start.name], json.loads(arguments.text), draft=jsonschema_rs.Draft7
    )


HARMONY = syntax_of("gpt_oss")
ASIDE = "<|channel|>analysis<|message|>hm<|end|><|start|>assistant"
FINAL = "<|channel|>final<|message|>"


def tokenizer_with(control_tokens: Sequence[str]) -> FolderTokenizer:
    """One that has a family's control tokens."""
    parser = byte_level()
    parser.add_special_tokens([AddedToken(text, special=True) for text in control_tokens])
    return served(parser)


@pytest.fixture(scope="module")
def is_harmony() -> Callable[..., bool]:
    """Whether a model may write exactly this, in ids."""
    tokenizer = tokenizer_with(HARMONY.control_tokens)
    factory = GrammarFactory(tokenizer, frozenset({EOS}))
    control_tokens = find_control_tokens(tokenizer, HARMONY.control_tokens)

    def reads_text(text: str, tools: Sequence[Tool] = TOOLS, **options: Any) -> bool:
        constraint = tool_constraint(HARMONY, tools, control_tokens=control_tokens, **options)
        ids = tokenizer.encode(text, allow_special=True)
        return reads(factory.compile(constraint), ids, end=EOS)

    return reads_text


@pytest.mark.parametrize("before", ["", ASIDE, ASIDE + ASIDE.replace("analysis", "commentary")])
def test_framed_replies_are_an_answer_or_one_call(
    is_harmony: Callable[..., bool], before: str
) -> None:
    """Behind any thoughts."""
    called = spelled(HARMONY, [("get_weather", ROME)])
    assert is_harmony(before + called, must_call=True)
    assert is_harmony(before + called)
    assert is_harmony(f"{before}{FINAL}text")
    assert not is_harmony(f"{before}{FINAL}text", must_call=True)
    assert not is_harmony(before + called.replace("Rome", "Paris"))
    assert not is_harmony(before + "text")
    answer = Constraint(kind="json_object")
    assert is_harmony(f'{before}{FINAL}{{"a": 1}}', answer=answer)
    assert is_harmony(before + called, answer=answer)
    assert not is_harmony(f"{before}{FINAL}text", answer=answer)


def test_framed_answers_need_no_tools(is_harmony: Callable[..., bool]) -> None:
    """A schema binds what stands in the frame."""
    answer = Constraint(kind="choice", source='["yes", "no"]')
    assert is_harmony(f"{ASIDE}{FINAL}yes", [], answer=answer)
    assert not is_harmony("yes", [], answer=answer)


@pytest.mark.parametrize("family", ["function_gemma", "gemma4"])
@pytest.mark.parametrize("is_special", [True, False])
def test_free_arguments_are_any_up_to_their_closer(family: str, is_special: bool) -> None:  # noqa: FBT001 - a parameter
    """The name is bound; strict tools are refused, since nothing else is."""
    syntax = syntax_of(family)
    tokenizer = tokenizer_with(syntax.control_tokens if is_special else ())
    factory = GrammarFactory(tokenizer, frozenset({EOS}))
    control_tokens = find_control_tokens(tokenizer, syntax.control_tokens)
    grammar = factory.compile(tool_constraint(syntax, TOOLS, control_tokens=control_tokens))
    quote = syntax.control_tokens[2]
    written = f"city:{quote}}}<x>{quote}}}"
    for name, before, expected in (("f", "hm ", True), ("f", "", True), ("g", "", False)):
        ids = tokenizer.encode(before + spelled(syntax, [(name, written)]), allow_special=True)
        assert reads(grammar, ids, end=EOS) is expected
    strict = Tool(name="g", strict=True, param="tools[0]")
    with pytest.raises(InvalidRequest) as caught:
        tool_constraint(syntax, [strict], control_tokens=control_tokens)
    assert caught.value.param == "tools[0]"


UNENFORCEABLE = {"type": "object", "properties": {"a": {"type": "string", "not": {}}}}


def test_a_strict_tool_that_cannot_be_enforced_is_refused_by_its_place() -> None:
    """A 400 that a client can act on."""
    tool = Tool(name="g", parameters=UNENFORCEABLE, strict=True, param="tools[1].function")
    with pytest.raises(InvalidRequest) as caught:
        tool_constraint(syntax_of("hermes"), [*TOOLS, tool], control_tokens={})
    assert caught.value.param == "tools[1].function/properties/a/not"


def test_a_tool_that_cannot_be_enforced_may_get_any_object() -> None:
    """It parses at least; the other tools stay as they are."""
    tools = [TOOLS[0], Tool(name="g", parameters=UNENFORCEABLE)]
    syntax = syntax_of("hermes")
    grammar = FACTORY.compile(tool_constraint(syntax, tools, control_tokens={}))
    for arguments, expected in (("{}", True), ('{"a": [1]}', True), ("1", False)):
        text = spelled(syntax, [("g", arguments)])
        assert reads(grammar, list(text.encode()), end=END) is expected
    assert not reads(grammar, list(spelled(syntax, [("get_weather", "{}")]).encode()), end=END)


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        (None, {"type": "object", "properties": {}, "additionalProperties": False}),
        ({}, {"type": "object"}),
        ({"type": "object"}, {"type": "object"}),
        (
            {"properties": {}},
            {"type": "object", "properties": {}, "additionalProperties": False},
        ),
        (
            {"type": "object", "properties": {}, "additionalProperties": {}},
            {"type": "object", "properties": {}, "additionalProperties": {}},
        ),
        (
            {"type": "object", "properties": {}, "required": ["a"]},
            {"type": "object", "properties": {}, "required": ["a"]},
        ),
    ],
)
def test_arguments_are_an_object_of_what_is_declared(
    parameters: dict[str, Any] | None, expected: dict[str, Any]
) -> None:
    """Never more than the client's schema allows, and nothing that it does not name."""
    assert arguments_schema(Tool(name="f", parameters=parameters)) == expected
