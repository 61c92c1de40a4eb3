"""Whole replies: the fold of a generation's events as one JSON object."""

from collections.abc import Sequence
from typing import Any

from provider_core.dialects.openai.chat_form import TEXT_ONLY, ChatForm
from provider_core.dialects.openai.logprobs import ChatLogprobs, CompletionLogprobs, DecodeToken
from provider_core.dialects.openai.usage import usage_object
from provider_core.text.events import ChoiceResult
from provider_core.types import Usage


def chat_completion(
    choices: Sequence[ChoiceResult],
    usage: Usage,
    *,
    generation_id: str,
    created: int,
    model: str,
    fingerprint: str,
    decode_token: DecodeToken | None = None,
    openrouter: bool = False,
    service_tier: str | None = None,
    form: ChatForm = TEXT_ONLY,
    cost: str | None = None,
) -> dict[str, Any]:
    """A chat completion, for `orjson.dumps`.

    Args:
        choices: In the order of their indexes; none of them failed.
        usage: The final counts.
        generation_id: Names the reply.
        created: Unix seconds.
        model: As the client asked for it.
        fingerprint: `system_fingerprint`, not empty.
        decode_token: How to name tokens if log probabilities were asked for, else `None`.
        openrouter: Add what `/api/v1` has: native finish reasons and the cost.
        service_tier: Which one served it, if the client named one.
        form: How the answer is written beyond its text.
        cost: USD as decimal digits.
    """
    logprobs = None if decode_token is None else ChatLogprobs(decode_token)
    encoded = []
    for choice in choices:
        shown = None if logprobs is None else logprobs.encode(choice.index, choice.logprobs)
        body = {"message": _message(choice, form)}
        reason = form.finish_reason(choice.finish_reason)
        encoded.append(_choice(choice, body, shown, reason, openrouter=openrouter))
    reply = {
        "id": generation_id,
        "object": "chat.completion",
        "created": created,
        "model": model,
        "system_fingerprint": fingerprint,
        "choices": encoded,
        "usage": usage_object(usage, cost=cost if openrouter else None),
    }
    return reply if service_tier is None else reply | {"service_tier": service_tier}


def text_completion(
    choices: Sequence[ChoiceResult],
    usage: Usage,
    *,
    generation_id: str,
    created: int,
    model: str,
    fingerprint: str,
    decode_token: DecodeToken | None = None,
    openrouter: bool = False,
    cost: str | None = None,
    echo: Sequence[str] = (),
) -> dict[str, Any]:
    """A text completion, for `orjson.dumps`.

    `echo` holds each choice's prompt as text if prompts are to be repeated; the other arguments
    are those of `chat_completion`.
    """
    logprobs = None if decode_token is None else CompletionLogprobs(decode_token)
    encoded = []
    for choice in choices:
        text = echo[choice.index] + choice.text if echo else choice.text
        tokens = [*choice.prompt_logprobs, *choice.logprobs]
        shown = None if logprobs is None else logprobs.encode(choice.index, tokens)
        body = {"text": text}
        encoded.append(_choice(choice, body, shown, choice.finish_reason, openrouter=openrouter))
    return {
        "id": generation_id,
        "object": "text_completion",
        "created": created,
        "model": model,
        "system_fingerprint": fingerprint,
        "choices": encoded,
        "usage": usage_object(usage, cost=cost if openrouter else None),
    }


def _message(choice: ChoiceResult, form: ChatForm) -> dict[str, Any]:
    """What the assistant said, thought and called; only `content` and `refusal` are ever null."""
    return {
        "role": "assistant",
        "content": None if choice.tool_calls and not choice.text else choice.text,
        "refusal": None,
        **(form.reasoning(choice.reasoning) if choice.reasoning else {}),
        **form.calls(choice.tool_calls),
    }


def _choice(
    choice: ChoiceResult,
    body: dict[str, Any],
    logprobs: dict[str, Any] | None,
    reason: str | None,
    *,
    openrouter: bool,
) -> dict[str, Any]:
    encoded = {
        "index": choice.index,
        **body,
        "logprobs": logprobs,
        "finish_reason": reason,
    }
    if openrouter:
        encoded["native_finish_reason"] = choice.native_finish_reason
    return encoded
