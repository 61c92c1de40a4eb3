"""Fields of Google's JSON by either of their names.

Protocol buffers give every field two: `systemInstruction`, which libraries send, and
`system_instruction`, which is in many examples. A repeated field of one item may be that item.
Values that clients name themselves (arguments, labels, properties of a schema) are never touched.
"""

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

from provider_core.dialects.validation import wrong_type


def get(value: Mapping[str, Any], name: str) -> Any:
    """A field's value; `None` if it is absent or null.

    Args:
        value: A JSON object.
        name: As libraries send it.
    """
    found = value.get(name)
    return value.get(_snake_case(name)) if found is None else found


def get_object(value: Mapping[str, Any], name: str, param: str) -> dict[str, Any] | None:
    """A field that holds an object.

    Raises:
        InvalidRequest: It holds something else; `param` is the path of `value`, with its dot.
    """
    found = get(value, name)
    if found is not None and not isinstance(found, dict):
        raise wrong_type(f"{param}{name}", "an object", found)
    return found


def get_string(value: Mapping[str, Any], name: str, param: str) -> str | None:
    """A field that holds a string.

    Raises:
        InvalidRequest: It holds something else; `param` is the path of `value`, with its dot.
    """
    found = get(value, name)
    if found is not None and not isinstance(found, str):
        raise wrong_type(f"{param}{name}", "a string", found)
    return found


def objects(value: Any, param: str) -> Iterator[tuple[dict[str, Any], str]]:
    """The objects of a repeated field, each with its path; one that stands alone is the first.

    Raises:
        InvalidRequest: An item is no object.
    """
    for index, item in enumerate(value if isinstance(value, list) else [value]):
        place = f"{param}[{index}]"
        if not isinstance(item, dict):
            raise wrong_type(place, "an object", item)
        yield item, place


@lru_cache
def _snake_case(name: str) -> str:
    return re.sub("[A-Z]", lambda letter: "_" + letter[0].lower(), name)
