"""Text completions: the shapes of `prompt`, echo, and the legacy limits."""

from typing import Any

import pytest

from tests.unit.dialects.request_bodies import LIMITS, completion, refused_completion


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("hi", ["hi"]),
        ("", [""]),
        (None, [""]),
        (["a", "b"], ["a", "b"]),
        ([1, 2, 3], [[1, 2, 3]]),
        ([[1], [2, 3]], [[1], [2, 3]]),
        (["x"] * 64, ["x"] * 64),
        ([0] * 100_000, [[0] * 100_000]),
    ],
)
def test_prompt_takes_four_shapes_and_null(prompt: Any, expected: list[Any]) -> None:
    """A text, texts, ids, lists of ids; null is the start of a document."""
    assert completion(prompt=prompt).prompts == expected


@pytest.mark.parametrize(
    "prompt",
    [
        5,
        True,
        {},
        [],
        [[]],
        [[1], []],
        ["a", 1],
        [1, "a"],
        ["a", None],
        [["a"]],
        [[1], "a"],
        [[[1]]],
        [1.0],
        [True],
        [1, True],
        [[1, True]],
        ["x"] * 65,
        [[1]] * 65,
        ["x"] * 10**6,
        [-1],
        [[5, -1]],
        [float(2**64)],
    ],
)
def test_p13_p14_other_prompts_are_refused(prompt: Any) -> None:
    """P13, P14: mixtures, empty lists, other types, too many, negative ids."""
    error = refused_completion(prompt=prompt)
    assert error.status == 400
    assert error.param is not None
    assert error.param.startswith("prompt")


def test_the_limit_of_prompts_is_named() -> None:
    """The message says how many are allowed."""
    message = refused_completion(prompt=["x"] * 65).message
    assert str(LIMITS.max_prompts) in message


def test_bug_15_completions_default_to_16_tokens() -> None:
    """BUG-15: the legacy default, and only here."""
    assert completion().sampling.max_tokens == 16
    assert completion(max_tokens=None).sampling.max_tokens == 16
    assert completion(max_tokens=500).sampling.max_tokens == 500


def test_logprobs_is_a_small_integer() -> None:
    """P8: 0 to 5, never a boolean; null is off."""
    assert completion().sampling.logprobs is None
    assert completion(logprobs=0).sampling.logprobs == 0
    assert completion(logprobs=5).sampling.logprobs == 5
    for value in (6, -1, 10**6, True, False, "1", 1.0):
        assert refused_completion(logprobs=value).param == "logprobs"


def test_echo_with_logprobs_wants_those_of_the_prompt() -> None:
    """Without echo, or without logprobs, the prompt's are not computed."""
    assert completion(echo=True, logprobs=2).sampling.prompt_logprobs == 2
    assert completion(echo=True).sampling.prompt_logprobs is None
    assert completion(logprobs=2).sampling.prompt_logprobs is None
    assert completion(echo=True).echo
    assert not completion(echo=None).echo
    assert refused_completion(echo=1).param == "echo"
