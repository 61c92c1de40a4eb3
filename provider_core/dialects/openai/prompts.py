"""The `prompt` of a text completion in its four shapes, and the `input` of embeddings."""

from typing import Any

from provider_core.dialects.validation import bad_value, wrong_type

_SHAPES = "a string, an array of strings, an array of token ids, or an array of such arrays"


def parse_prompts(value: Any, max_prompts: int, *, param: str = "prompt") -> list[str | list[int]]:
    """Read `prompt` as one or more prompts, each text or token ids.

    Ids are checked against 0 here and against the vocabulary where it is known.

    Args:
        value: Any JSON value; null is the start of a document, which is the empty text.
        max_prompts: Most prompts allowed.
        param: The field's name, for errors.

    Raises:
        InvalidRequest: Another shape, an empty array, or too many prompts.
    """
    if value is None:
        return [""]
    if isinstance(value, str):
        return [value]
    if not isinstance(value, list):
        raise wrong_type(param, _SHAPES, value)
    if not value:
        raise bad_value(param, "must not be empty")
    kinds = set(map(type, value))
    if kinds == {int}:
        return [_token_ids(value, param)]
    strange = [item for item in value if type(item) not in {str, list, int}]
    if strange:
        raise wrong_type(param, _SHAPES, strange[0])
    if len(kinds) > 1:
        raise bad_value(param, f"must be {_SHAPES}, not a mixture")
    if len(value) > max_prompts:
        raise bad_value(param, f"must hold at most {max_prompts} {param}s, not {len(value)}")
    if kinds == {str}:
        return list(value)
    return [_token_ids(item, f"{param}[{index}]") for index, item in enumerate(value)]


def _token_ids(values: list[Any], param: str) -> list[int]:
    if not values:
        raise bad_value(param, "must not be empty")
    if set(map(type, values)) != {int}:  # `bool` is no `int` here
        raise wrong_type(
            param, "an array of token ids", next(v for v in values if type(v) is not int)
        )
    if min(values) < 0:
        raise bad_value(param, "must hold token ids of at least 0")
    return values
