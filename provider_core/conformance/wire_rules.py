"""What a whole answer in OpenAI's form must look like, by the rules of the strictest client.

Each function raises `Failed` with the first rule that is broken.
"""

from typing import Any

from provider_core.conformance.exchange import Reply
from provider_core.conformance.verdict import require

FINISH_REASONS = {"stop", "length", "content_filter", "tool_calls", "function_call"}
MAX_CALL_ID = 64


def check_completion(body: Any, *, kind: str, num_choices: int = 1) -> None:  # any server's JSON
    """Check a whole chat or text completion.

    Args:
        body: As parsed.
        kind: `chat` or `text`.
        num_choices: How many it must have.
    """
    expected = "chat.completion" if kind == "chat" else "text_completion"
    require(isinstance(body, dict), "the answer is not a JSON object")
    require(body.get("object") == expected, f"object is {body.get('object')!r}, not {expected!r}")
    for name in ("id", "model"):
        require(isinstance(body.get(name), str) and body[name], f"{name} is not a string")
    require(type(body.get("created")) is int, "created is not an integer")
    choices = body.get("choices")
    require(isinstance(choices, list) and choices, "choices is not a list with an item")
    require(len(choices) == num_choices, f"{len(choices)} choices came, {num_choices} were due")
    require(
        sorted(choice.get("index", -1) for choice in choices) == list(range(num_choices)),
        "the choices' index is not 0, 1, ...",
    )
    for choice in choices:
        _check_choice(choice, kind)
    require(isinstance(body.get("usage"), dict), "usage is missing")
    check_usage(body["usage"])


def check_usage(usage: Any) -> None:  # any server's JSON
    """Check counts: integers that add up, parts within their whole, no half-empty details."""
    for name in ("prompt_tokens", "completion_tokens", "total_tokens"):
        require(type(usage.get(name)) is int, f"usage.{name} is {usage.get(name)!r}, no integer")
    prompt, completion = usage["prompt_tokens"], usage["completion_tokens"]
    require(
        usage["total_tokens"] == prompt + completion,
        f"usage.total_tokens is {usage['total_tokens']}, not {prompt} + {completion}",
    )
    parts = (
        ("prompt_tokens_details", "cached_tokens", prompt),
        ("completion_tokens_details", "reasoning_tokens", completion),
    )
    for name, part, whole in parts:
        if name not in usage:
            continue
        details = usage[name]
        count = details.get(part) if isinstance(details, dict) else None
        require(type(count) is int, f"usage.{name}.{part} is {count!r}, no integer")
        require(0 <= int(count or 0) <= whole, f"usage.{name}.{part} is {count}, of {whole}")
    if "cost" in usage:
        require(type(usage["cost"]) in {int, float}, "usage.cost is no number")


def check_call(call: Any) -> None:  # any server's JSON
    """Check one tool call of a whole answer."""
    require(call.get("type") == "function", f"a call's type is {call.get('type')!r}")
    size = len(call.get("id") or "")
    require(0 < size <= MAX_CALL_ID, f"a call's id has {size} characters, not 1 to {MAX_CALL_ID}")
    function = call.get("function") or {}
    require(isinstance(function.get("name"), str) and function["name"], "a call has no name")
    require(
        isinstance(function.get("arguments"), str) and function["arguments"],
        "a call's arguments are not a JSON string; without any they are '{}'",
    )


def check_error(reply: Reply, *statuses: int, integer_code: bool = False) -> dict[str, Any]:
    """Check a refusal: its status and OpenAI's error object.

    Args:
        reply: What came.
        statuses: Those that are right.
        integer_code: OpenRouter's variant, whose `code` is the status.

    Returns:
        The error object.
    """
    wanted = " or ".join(str(status) for status in statuses)
    require(reply.status in statuses, f"status {reply.status}, not {wanted}: {reply.excerpt}")
    content_type = reply.headers.get("content-type", "")
    require(content_type.startswith("application/json"), f"the error is {content_type!r}, no JSON")
    body = reply.json()
    error = body.get("error") if isinstance(body, dict) else None
    if not isinstance(error, dict):
        require(holds=False, reason=f"there is no error object: {reply.excerpt}")
        return {}
    require(isinstance(error.get("message"), str) and error["message"], "error.message is empty")
    if integer_code:
        require(type(error.get("code")) is int, f"error.code is {error.get('code')!r}, no integer")
        return error
    require(isinstance(error.get("type"), str) and error["type"], "error.type is not a string")
    for name in ("param", "code"):
        require(name in error, f"error.{name} is missing; without a value it is null")
        value = error[name]
        require(value is None or isinstance(value, str), f"error.{name} is {value!r}, no string")
    return error


def _check_choice(choice: Any, kind: str) -> None:  # any server's JSON
    reason = choice.get("finish_reason")
    require(reason in FINISH_REASONS, f"finish_reason is {reason!r}")
    if kind == "text":
        require(isinstance(choice.get("text"), str), "a choice's text is not a string")
        return
    message = choice.get("message")
    require(isinstance(message, dict), "a choice has no message")
    require(message.get("role") == "assistant", f"message.role is {message.get('role')!r}")
    require("content" in message, "message.content is missing; without text it is null")
    calls = message.get("tool_calls", [])
    require("tool_calls" not in message or calls, "message.tool_calls is empty, not absent")
    for call in calls:
        check_call(call)
    require(len({call["id"] for call in calls}) == len(calls), "two calls have one id")
    is_said = isinstance(message["content"], str)
    require(is_said or calls or "function_call" in message, "message.content is null with no call")
