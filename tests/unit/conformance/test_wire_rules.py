"""Whole answers and refusals: good ones pass, bad ones are named."""

from typing import Any

import orjson
import pytest

from provider_core.conformance.exchange import Reply
from provider_core.conformance.verdict import Failed
from provider_core.conformance.wire_rules import check_completion, check_error
from tests.unit.conformance.made_answers import USAGE, completion

CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
ERROR = {"message": "no", "type": "invalid_request_error", "param": None, "code": None}


def with_message(**fields: Any) -> dict[str, Any]:
    """A completion whose message has other fields."""
    whole = completion()
    choice = whole["choices"][0]
    return whole | {"choices": [choice | {"message": choice["message"] | fields}]}


def with_choice(**fields: Any) -> dict[str, Any]:
    """A completion whose choice has other fields."""
    whole = completion()
    return whole | {"choices": [whole["choices"][0] | fields]}


def refusal(error: Any, status: int = 400, content_type: str = "application/json") -> Reply:
    """An answer with an error object."""
    body = orjson.dumps({"error": error})
    return Reply(status=status, headers={"content-type": content_type}, body=body)


def test_good_completions_pass() -> None:
    """With text, and with a call."""
    check_completion(completion(), kind="chat")
    check_completion(with_message(content=None, tool_calls=[CALL]), kind="chat")


BROKEN = {
    "object": (completion(object="text_completion"), "object is 'text_completion'"),
    "id": (completion(id=""), "id is not a string"),
    "created": (completion(created=1.0), "created is not an integer"),
    "no_choices": (completion(choices=[]), "not a list with an item"),
    "bug_19_one_for_two": (completion(choices=completion()["choices"] * 2), "2 choices came"),
    "bug_05_reason": (with_choice(finish_reason="eos_token"), "finish_reason is 'eos_token'"),
    "no_usage": (completion(usage=None), "usage is missing"),
    "float_count": (completion(usage=USAGE | {"prompt_tokens": 5.0}), "no integer"),
    "null_cost": (completion(usage=USAGE | {"cost": None}), "usage.cost is no number"),
    "role": (with_message(role="user"), "message.role is 'user'"),
    "no_calls": (with_message(tool_calls=[]), "empty, not absent"),
    "bug_21_arguments": (
        with_message(tool_calls=[CALL | {"function": {"name": "f", "arguments": ""}}]),
        "without any they are '{}'",
    ),
    "one_id": (with_message(tool_calls=[CALL, CALL]), "two calls have one id"),
    "bug_33_nothing": (with_message(content=None), "content is null with no call"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_completions_are_named(name: str) -> None:
    """Each by the rule that it breaks."""
    body, reason = BROKEN[name]

    with pytest.raises(Failed) as caught:
        check_completion(body, kind="chat")
    assert reason in caught.value.reason


def test_good_errors_pass_in_both_variants() -> None:
    """Strings for OpenAI, the status as an integer for OpenRouter."""
    assert check_error(refusal(ERROR), 400) == ERROR
    check_error(refusal({"message": "no", "code": 400}), 400, integer_code=True)


BROKEN_ERRORS = {
    "status": (refusal(ERROR, status=500), "status 500, not 400"),
    "html": (refusal(ERROR, content_type="text/html"), "'text/html', no JSON"),
    "no_object": (refusal("no"), "there is no error object"),
    "no_message": (refusal(ERROR | {"message": ""}), "error.message is empty"),
    "no_param": (refusal({"message": "no", "type": "x", "code": None}), "param is missing"),
    "bug_11_integer_code": (refusal(ERROR | {"code": 400}), "error.code is 400, no string"),
}


@pytest.mark.parametrize("name", BROKEN_ERRORS)
def test_broken_errors_are_named(name: str) -> None:
    """Each by the rule that it breaks."""
    reply, reason = BROKEN_ERRORS[name]

    with pytest.raises(Failed) as caught:
        check_error(reply, 400)
    assert reason in caught.value.reason


def test_an_integer_code_is_what_openrouter_wants() -> None:
    """And a string is not."""
    with pytest.raises(Failed, match="no integer"):
        check_error(refusal(ERROR | {"code": "x"}), 400, integer_code=True)
