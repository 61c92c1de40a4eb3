"""Good JSON documents in which anything, at any depth, may have become something else."""

from collections.abc import Callable, Iterator
from copy import deepcopy
from typing import Any, TypeVar

from hypothesis import strategies as st

from provider_core.errors import InvalidRequest

_Parsed = TypeVar("_Parsed")

ANY_VALUE: st.SearchStrategy[Any] = st.sampled_from(
    [
        *(None, True, False, 0, 1, -1, 2**31, 2**63, -(2**63), 0.5, 1e308, "", "a", "auto", "\0"),
        *("x" * 300, [], [[]], [0], ["a"], [None], [{}], {}, {"a": 1}, {"type": "text"}),
        *({"type": "tool_use"}, {"type": 5}, [{"text": "a"}], {"mode": "ANY"}),
    ]
)


@st.composite
def changed(draw: st.DrawFn, documents: list[dict[str, Any]]) -> dict[str, Any]:
    """One of the documents, with up to three of its values, at any depth, exchanged."""
    document: dict[str, Any] = deepcopy(draw(st.sampled_from(documents)))
    for _ in range(draw(st.integers(1, 3))):
        places = list(_places(document))
        container, key = draw(st.sampled_from(places))
        container[key] = deepcopy(draw(ANY_VALUE))
    return document


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every container with a key of it."""
    keys = list(value) if isinstance(value, dict) else range(len(value))
    for key in keys:
        yield value, key
        if isinstance(value[key], dict | list):
            yield from _places(value[key])


def read_or_refused(parse: Callable[[], _Parsed]) -> _Parsed | None:
    """What a parser reads; `None` if it refuses as it should, with a message and a field."""
    try:
        return parse()
    except InvalidRequest as error:
        refusal = error
    assert refusal.message
    assert refusal.param
    return None
