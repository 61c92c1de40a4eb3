"""Streams: each event of a generation to the bytes of its server-sent events.

Every byte string returned is one or more complete events, ready to be written at once. A plain
text delta is three byte strings joined: all that does not change is built when the stream opens.

A call of a tool says its id, type and name once, in its first delta; each later one adds nothing
but a fragment of the arguments. Clients join whatever is repeated, and take arguments that parse
as JSON for whole ones, so nothing stands in for those that have not come.

Usage leaves exactly once: as a chunk of its own without choices if the client asked for it, else
on the last finish chunk, which is held back until the counts are final.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar, assert_never

import orjson

from provider_core.dialects.openai.chat_form import TEXT_ONLY, ChatForm
from provider_core.dialects.openai.errors import error_object as openai_error_object
from provider_core.dialects.openai.logprobs import (
    ChatLogprobs,
    CompletionLogprobs,
    DecodeToken,
)
from provider_core.dialects.openai.usage import usage_object
from provider_core.dialects.openrouter.errors import error_object as openrouter_error_object
from provider_core.dialects.sse_json import dumps
from provider_core.text.events import (
    Event,
    Finished,
    PromptEcho,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
    ToolCallStart,
)
from provider_core.types import TokenLogprobs, Usage

KEEPALIVE = b": keep-alive\n\n"
DONE = b"data: [DONE]\n\n"

_MARK = "?"


class StreamEncoder(ABC):
    """What the two kinds of streams share.

    Args:
        generation_id: The same in every chunk, as are `created` and `model`.
        created: Unix seconds.
        model: As the client asked for it.
        fingerprint: `system_fingerprint`, not empty.
        num_choices: Choices of the stream; their indexes count from 0.
        include_usage: Usage comes as a chunk of its own.
        decode_token: How to name tokens if log probabilities were asked for, else `None`.
        openrouter: Speak the `/api/v1` variant: integer error codes, native finish reasons, cost,
            and never `usage: null`.
        service_tier: Which one served it, if the client named one.
        form: How a chat's answer is written beyond its text.
        echo: For text completions that repeat their prompts: each choice's prompt as text.
    """

    keepalive: ClassVar[bytes] = KEEPALIVE
    _object: ClassVar[str]
    _logprobs_type: ClassVar[type[ChatLogprobs | CompletionLogprobs]]
    _before_text: ClassVar[bytes]  # what stands between a choice's index and its text
    _after_text: ClassVar[bytes]
    _finish_body: ClassVar[bytes]  # what a choice holds that only finishes
    _error_body: ClassVar[bytes]  # the same if it failed

    def __init__(
        self,
        *,
        generation_id: str,
        created: int,
        model: str,
        fingerprint: str,
        num_choices: int = 1,
        include_usage: bool = False,
        decode_token: DecodeToken | None = None,
        openrouter: bool = False,
        service_tier: str | None = None,
        form: ChatForm = TEXT_ONLY,
        echo: Sequence[str] = (),
    ) -> None:
        envelope = {
            "id": generation_id,
            "object": self._object,
            "created": created,
            "model": model,
            "system_fingerprint": fingerprint,
        }
        if service_tier is not None:
            envelope["service_tier"] = service_tier
        self._head = b"data: " + dumps(envelope)[:-1]
        self._choices_head = self._head + b',"choices":['
        # OpenAI's own streams say null until usage comes; OpenRouter's libraries reject that.
        says_null_usage = include_usage and not openrouter
        self._tail = b'],"usage":null}\n\n' if says_null_usage else b"]}\n\n"
        self._text_heads = [
            b'%b{"index":%d,%b' % (self._choices_head, index, self._before_text)
            for index in range(num_choices)
        ]
        self._text_tail = self._after_text + b',"logprobs":null,"finish_reason":null}' + self._tail
        self._include_usage = include_usage
        self._logprobs = None if decode_token is None else self._logprobs_type(decode_token)
        self._openrouter = openrouter
        self._form = form
        # Around the text, which may stand in several places.
        self._reasoning = dumps(form.reasoning(_MARK)).split(dumps(_MARK))
        self._echo = echo
        # With tools a choice's first event decides what opens it.
        self._unopened = set(range(num_choices)) if form.offers_tools else set()
        self._unfinished = set(range(num_choices))
        self._held: Finished | None = None  # the last finish, until usage is known
        self._failure: Finished | None = None

    @abstractmethod
    def first(self, index: int) -> bytes:
        """What opens a choice, before any event of it; may be empty."""

    @abstractmethod
    def _open(self, event: Event) -> bytes:
        """What opens a choice that was left to its first event."""

    @abstractmethod
    def _structure(self, event: ReasoningDelta | ToolCallStart | ToolCallDelta) -> bytes:
        """The bytes of what is no plain text."""

    def encode(self, event: Event) -> bytes:
        """The bytes of one event; empty for a finish that waits for the end of the stream."""
        if self._unopened and event.index in self._unopened:
            self._unopened.discard(event.index)
            return self._open(event) + self.encode(event)
        if type(event) is TextDelta and self._logprobs is None:
            return self._text(event.index, event.text)
        match event:
            case TextDelta():
                return self._text_with_logprobs(event.index, event.text, event.logprobs)
            case PromptEcho():
                prompt = self._echo[event.index] if self._echo else ""
                return self._text_with_logprobs(event.index, prompt, event.logprobs)
            case Finished(finish_reason="error" | "abort"):
                self._failure = event  # leaves in one chunk with all that failed, at the end
                return b""
            case Finished():
                if self._unfinished == {event.index} and not self._include_usage:
                    self._held = event
                    return b""
                return self._finish(event, self._tail)
            case ReasoningDelta() | ToolCallStart() | ToolCallDelta():
                return self._structure(event)
            case _:
                assert_never(event)

    def end(self, usage: Usage, cost: str | None = None) -> bytes:
        """The last bytes of a stream whose choices have all finished: usage and the terminator.

        Args:
            usage: The final counts.
            cost: USD as decimal digits; sent under `/api/v1` only.
        """
        if self._failure is not None:
            return self.error(self._failure.error, usage, cost)
        tail = self._usage_tail(usage, cost)
        if self._held is not None:
            return self._finish(self._held, tail) + DONE
        return self._choices_head + tail + DONE

    def error(
        self, error: BaseException | None, usage: Usage | None = None, cost: str | None = None
    ) -> bytes:
        """The last bytes of a stream that failed: one chunk with the error, and the terminator.

        Every choice whose finish has not left yet finishes with `error`.

        Args:
            error: Of a `ProviderError` the message is shown, of anything else nothing.
            usage: The counts so far, if they are to be sent.
            cost: USD as decimal digits; sent under `/api/v1` only.
        """
        tail = b"]}\n\n" if usage is None else self._usage_tail(usage, cost)
        choices = [
            _choice(index, self._error_body, b'"error"') for index in sorted(self._unfinished)
        ]
        error_object = openrouter_error_object if self._openrouter else openai_error_object
        head = b'%b,"error":%b,"choices":[' % (self._head, dumps(error_object(error)))
        return head + b",".join(choices) + tail + DONE

    def _text(self, index: int, text: str) -> bytes:
        return self._text_heads[index] + dumps(text) + self._text_tail

    def _text_with_logprobs(
        self, index: int, text: str, logprobs: Sequence[TokenLogprobs]
    ) -> bytes:
        if self._logprobs is None:
            return self._text(index, text)
        return b'%b%b%b,"logprobs":%b,"finish_reason":null}%b' % (
            self._text_heads[index],
            dumps(text),
            self._after_text,
            dumps(self._logprobs.encode(index, logprobs)),
            self._tail,
        )

    def _finish(self, event: Finished, tail: bytes) -> bytes:
        self._unfinished.discard(event.index)
        reason = dumps(self._form.finish_reason(event.finish_reason))
        if self._openrouter:
            reason += b',"native_finish_reason":' + dumps(event.native_finish_reason)
        return self._choices_head + _choice(event.index, self._finish_body, reason) + tail

    def _usage_tail(self, usage: Usage, cost: str | None) -> bytes:
        counts = usage_object(usage, cost=cost if self._openrouter else None)
        return b'],"usage":%b}\n\n' % orjson.dumps(counts)


class ChatStreamEncoder(StreamEncoder):
    """The stream of a chat completion."""

    _object = "chat.completion.chunk"
    _logprobs_type = ChatLogprobs
    _before_text = b'"delta":{"content":'
    _after_text = b"}"
    _finish_body = b'"delta":{}'
    _error_body = b'"delta":{"content":""}'

    def first(self, index: int) -> bytes:
        """The chunk that names the role, which no later one repeats."""
        return b"" if index in self._unopened else self._role(index, b'""')

    def _open(self, event: Event) -> bytes:
        if type(event) is Finished and event.finish_reason in {"error", "abort"}:
            return b""
        return self._role(event.index, b"null" if type(event) is ToolCallStart else b'""')

    def _role(self, index: int, content: bytes) -> bytes:
        body = b'"delta":{"role":"assistant","content":%b}' % content
        return self._choices_head + _choice(index, body, b"null") + self._tail

    def _structure(self, event: ReasoningDelta | ToolCallStart | ToolCallDelta) -> bytes:
        if isinstance(event, ReasoningDelta):
            delta = dumps(event.text).join(self._reasoning)
        else:
            delta = dumps(self._form.call_delta(event))
        logprobs = b"null"
        if self._logprobs is not None:
            logprobs = dumps(self._logprobs.encode(event.index, event.logprobs))
        return b'%b{"index":%d,"delta":%b,"logprobs":%b,"finish_reason":null}%b' % (
            self._choices_head,
            event.index,
            delta,
            logprobs,
            self._tail,
        )


class CompletionStreamEncoder(StreamEncoder):
    """The stream of a text completion."""

    _object = "text_completion"
    _logprobs_type = CompletionLogprobs
    _before_text = b'"text":'
    _after_text = b""
    _finish_body = b'"text":""'
    _error_body = b'"text":""'

    def first(self, index: int) -> bytes:
        """The prompt, if it is to be echoed and no `PromptEcho` will bring it."""
        return self._text(index, self._echo[index]) if self._echo and not self._logprobs else b""

    def _open(self, event: Event) -> bytes:
        raise AssertionError(f"a text completion offers no tools: {type(event)}")

    def _structure(self, event: ReasoningDelta | ToolCallStart | ToolCallDelta) -> bytes:
        raise AssertionError(f"a text completion has text only: {type(event)}")


def _choice(index: int, body: bytes, finish_reason: bytes) -> bytes:
    return b'{"index":%d,%b,"logprobs":null,"finish_reason":%b}' % (index, body, finish_reason)
