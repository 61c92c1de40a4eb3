"""What a parsed OpenAI request says of its answer: the stream's encoder, or the whole body."""

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import orjson

import provider_core
from provider_core.billing.events import Endpoint
from provider_core.dialects.openai.chat_form import ChatForm
from provider_core.dialects.openai.chunks import (
    ChatStreamEncoder,
    CompletionStreamEncoder,
    StreamEncoder,
)
from provider_core.dialects.openai.requests import ParsedChat, ParsedCompletion
from provider_core.dialects.openai.responses import chat_completion, text_completion
from provider_core.server.call import Call
from provider_core.server.models import ServedModel
from provider_core.text.events import ChoiceResult, Event, fold, pick_best
from provider_core.types import Usage


class OpenAIReply:
    """Encodes one generation as its client asked.

    Args:
        call: The HTTP request; its generation id names the reply.
        model: What runs.
        parsed: What was asked.
        echo: Each choice's prompt as text, if it is to be repeated.
        has_reasoning_content: See `ChatForm`.
    """

    def __init__(
        self,
        call: Call,
        model: ServedModel,
        parsed: ParsedChat | ParsedCompletion,
        echo: Sequence[str] = (),
        *,
        has_reasoning_content: bool = False,
    ) -> None:
        self._parsed = parsed
        wants_logprobs = parsed.sampling.logprobs is not None
        self._shared: dict[str, Any] = {  # keyword arguments of several types
            "generation_id": call.generation_id,
            "created": int(call.received_wall),
            "model": parsed.model,
            "fingerprint": fingerprint(model),
            "decode_token": model.decode_token if wants_logprobs else None,
            "openrouter": call.is_openrouter,
        }
        if isinstance(parsed, ParsedChat):
            self._shared["service_tier"] = parsed.service_tier
            self._shared["form"] = ChatForm(
                offers_tools=parsed.tool_choice.mode != "none",
                is_legacy=parsed.has_functions,
                has_reasoning_content=has_reasoning_content,
            )
        else:
            self._shared["echo"] = echo

    @property
    def endpoint(self) -> Endpoint:
        """The route's name in the usage event."""
        return "chat.completions" if isinstance(self._parsed, ParsedChat) else "completions"

    def stream_encoder(self, num_choices: int, _usage: Callable[[], Usage]) -> StreamEncoder:
        """An encoder for a stream of so many choices; its first events hold no counts."""
        options = {
            **self._shared,
            "num_choices": num_choices,
            "include_usage": self._parsed.include_usage,
        }
        is_chat = isinstance(self._parsed, ParsedChat)
        return ChatStreamEncoder(**options) if is_chat else CompletionStreamEncoder(**options)

    def whole(self, events: list[Event], usage: Usage, cost: str) -> bytes:
        """The whole body: a fold over the events a stream would have shown."""
        choices: list[ChoiceResult] = fold(events)
        parsed = self._parsed
        if parsed.best_of > parsed.n:
            choices = pick_best(choices, best_of=parsed.best_of, n=parsed.n)
        encode = chat_completion if isinstance(parsed, ParsedChat) else text_completion
        return orjson.dumps(encode(choices, usage, **self._shared, cost=cost))


def fingerprint(model: ServedModel) -> str:
    """`system_fingerprint`: changes when the same seed may give another text."""
    info = model.engine.info
    facts = (
        provider_core.__version__,
        model.spec.id,
        info.backend,
        info.backend_version,
        info.device,
        info.precision or "",
    )
    return "fp_" + hashlib.sha256("\n".join(facts).encode()).hexdigest()[:12]
