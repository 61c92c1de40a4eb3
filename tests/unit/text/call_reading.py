"""Parsers of all families, and replies read by them piece by piece."""

from collections.abc import Sequence

from hypothesis import strategies as st

from provider_core.text.tool_parsers import TOOL_FAMILIES
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
    if (syntax := parser.syntax) and not (name in FRAMED or syntax.elements or syntax.is_free)
]

ELEMENTS = ["qwen3_coder", "seed", "glm"]

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


def syntax_of(family: str) -> ToolSyntax:
    """How a family spells calls."""
    syntax = PARSERS[family].syntax
    assert syntax
    return syntax


def element_call(family: str, **arguments: str) -> str:
    """A call of `get_weather` with elements."""
    syntax = syntax_of(family)
    assert syntax.elements
    elements = syntax.elements
    written = "".join(
        f"{elements.before_key}{name}{elements.after_key}{value}{elements.after_value}"
        for name, value in arguments.items()
    )
    return spelled(syntax, [("get_weather", written)])


def call(name: str, arguments: str) -> list[ToolPiece]:
    """A whole call."""
    return [CallStart(name), CallArguments(arguments), CallEnd()]
