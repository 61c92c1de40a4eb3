"""Answers against the published types of OpenAI's own package, validated strictly."""

from typing import Any

import openai.types as sdk
import openai.types.chat as sdk_chat
import orjson
import pytest
from pydantic import BaseModel

from provider_core.dialects.openai import (
    ChatStreamEncoder,
    CompletionStreamEncoder,
    chat_completion,
    make_decode_token,
    model_item,
    text_completion,
)
from provider_core.text.events import ChoiceResult, Event, Finished, TextDelta
from provider_core.types import ModelSpec, TokenLogprobs, Usage
from tests.sse_checker import split_events

ENTRY = TokenLogprobs(0, -0.5, ((0, -0.5), (1, -1.0)))
EVENTS: list[Event] = [TextDelta(0, "a", (ENTRY,)), Finished(0, "stop", "eos")]
CHOICE = ChoiceResult(0, "a", "stop", "eos", logprobs=[ENTRY])
USAGE = Usage(prompt_tokens=5, completion_tokens=2)
HEAD: dict[str, Any] = {
    "generation_id": "gen-1",
    "created": 7,
    "model": "a/b",
    "fingerprint": "fp",
    "decode_token": make_decode_token(lambda token_id: bytes([97 + token_id])),
}


def validate(model: type[BaseModel], value: Any) -> None:
    """Validate as pydantic does, which the package itself does not when it parses."""
    model.model_validate_json(orjson.dumps(value), strict=True)


@pytest.mark.parametrize("openrouter", [False, True])
@pytest.mark.parametrize("include_usage", [False, True])
def test_streams_have_the_types_of_the_package(*, include_usage: bool, openrouter: bool) -> None:
    """Every chunk of either stream validates."""
    for encoder_type, model in (
        (ChatStreamEncoder, sdk_chat.ChatCompletionChunk),
        (CompletionStreamEncoder, sdk.Completion),
    ):
        encoder = encoder_type(**HEAD, include_usage=include_usage, openrouter=openrouter)
        body = encoder.first(0) + b"".join(map(encoder.encode, EVENTS)) + encoder.end(USAGE)
        chunks = [orjson.loads(payload) for payload in split_events(body)[0]]
        for chunk in chunks:
            if encoder_type is CompletionStreamEncoder:  # the package's type is of whole replies
                for choice in chunk["choices"]:
                    choice["finish_reason"] = choice["finish_reason"] or "stop"
            validate(model, chunk)


def test_whole_replies_have_the_types_of_the_package() -> None:
    """Chat, text, and the list's items."""
    validate(sdk_chat.ChatCompletion, chat_completion([CHOICE], USAGE, **HEAD))
    validate(sdk.Completion, text_completion([CHOICE], USAGE, **HEAD))
    validate(sdk.Model, model_item(ModelSpec(id="a/b", source="x", max_model_len=10)))


def test_the_types_are_strict_enough_to_fail() -> None:
    """A reply with a wrong type is noticed."""
    reply = chat_completion([CHOICE], USAGE, **HEAD)
    with pytest.raises(ValueError, match="created"):
        validate(sdk_chat.ChatCompletion, {**reply, "created": "now"})
