"""What a check asks with: requests to one provider, the last of which it can repeat."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from time import perf_counter
from typing import Any

import aiohttp
import orjson

from provider_core.conformance.endpoint import Endpoint
from provider_core.conformance.event_stream import Stream, read_stream
from provider_core.conformance.exchange import Exchange, Reply
from provider_core.conformance.subject import Subject
from provider_core.conformance.verdict import Failed, require
from provider_core.conformance.wire_rules import check_completion

MAX_RETRIES = 3
MAX_RETRY_AFTER_S = 30.0
_BEARER = ("Authorization", "Bearer ")

Messages = str | Sequence[Mapping[str, Any]]
"""A user's words, or a whole conversation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How much to ask of a provider.

    Attributes:
        num_parallel: Requests at a time, of the load checks.
        num_burst: Requests at once that should provoke a refusal.
        num_long_tokens: Of the long stream.
        timeout_s: Longest check.
    """

    num_parallel: int = 8
    num_burst: int = 200
    num_long_tokens: int = 10_000
    timeout_s: float = 300.0


@dataclass(slots=True, kw_only=True)
class Probe:
    """The requests of one check.

    Attributes:
        pages: Addresses of the provider's public pages, by their key in `provider.toml`.
        refusals: Every 429 that came, over all checks.
        last: The request that was sent last.
    """

    endpoint: Endpoint
    session: aiohttp.ClientSession
    subject: Subject
    plan: Plan = field(default_factory=Plan)
    pages: Mapping[str, str] = field(default_factory=dict)
    refusals: list[Reply] = field(default_factory=list)
    last: Exchange | None = None

    async def send(
        self,
        method: str,
        url: str,
        *,
        json: Any = None,  # what JSON can hold
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        key: str | None = None,
        key_header: tuple[str, str] | None = _BEARER,
        retry: bool = True,
    ) -> Reply:
        """Send one request and read its whole answer.

        Args:
            method: Of HTTP.
            url: Absolute.
            json: The body; `None` for none or for `body`.
            body: The body as bytes, well-formed or not.
            headers: Further ones.
            key: Instead of the provider's own.
            key_header: Where it stands, `None` sends none.
            retry: Wait and try again when told so by a 429.
        """
        if json is not None:
            body = orjson.dumps(json)
        said = dict(headers or {})
        if body is not None:
            said.setdefault("Content-Type", "application/json")
        key = self.endpoint.key if key is None else key
        if key is None:
            key_header = None
        self.last = Exchange(method=method, url=url, headers=said, key_header=key_header, body=body)
        if key_header is not None:
            said = {**said, key_header[0]: key_header[1] + str(key)}
        for attempt in range(MAX_RETRIES + 1):
            reply = await self._exchange(method, url, said, body)
            if reply.status != 429:
                break
            self.refusals.append(reply)
            wait_s = _retry_after(reply)
            if not retry or attempt == MAX_RETRIES or wait_s is None:
                break
            await asyncio.sleep(wait_s)
        return reply

    async def _exchange(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | None
    ) -> Reply:
        sent_s = perf_counter()
        received = bytearray()
        arrivals: list[tuple[float, int]] = []
        data = None if body is None else BytesIO(body)  # as bytes a large one would be warned of
        async with self.session.request(method, url, data=data, headers=headers) as response:
            async for piece in response.content.iter_any():
                received += piece
                arrivals.append((perf_counter() - sent_s, len(received)))
            lowered = {name.lower(): value for name, value in response.headers.items()}
            return Reply(
                status=response.status,
                headers=lowered,
                body=bytes(received),
                arrivals=tuple(arrivals),
                total_s=perf_counter() - sent_s,
            )

    async def get(self, url: str, **options: Any) -> Reply:
        """Ask for a document; options as of `send`."""
        return await self.send("GET", url, **options)

    async def leave(self, messages: Messages = "Tell me a long story.", **fields: Any) -> int:
        """Begin a streamed chat, and close the connection after its first bytes.

        Returns:
            How many bytes had come.
        """
        body = orjson.dumps(self.chat_body(messages, stream=True, **fields))
        url = f"{self.endpoint.base}/chat/completions"
        headers = {"Content-Type": "application/json"}
        key_header = None if self.endpoint.key is None else _BEARER
        self.last = Exchange(
            method="POST", url=url, headers=headers, key_header=key_header, body=body
        )
        if self.endpoint.key is not None:
            headers = {**headers, _BEARER[0]: _BEARER[1] + self.endpoint.key}
        async with self.session.post(url, data=body, headers=headers) as response:
            require(response.status == 200, f"status {response.status} for a stream")
            data = await response.content.readany()
            response.close()  # closes the connection, which is how clients cancel
        return len(data)

    def chat_body(self, messages: Messages, **fields: Any) -> dict[str, Any]:
        """A chat request; a field that is `None` is left out."""
        if isinstance(messages, str):
            messages = [{"role": "user", "content": messages}]
        defaults = {"model": self.subject.model, "messages": messages, "max_tokens": 16}
        body = {**defaults, "temperature": 0, **fields}
        return {name: value for name, value in body.items() if value is not None}

    def text_body(self, prompt: str, **fields: Any) -> dict[str, Any]:
        """A text completion request; a field that is `None` is left out."""
        defaults = {"model": self.subject.model, "prompt": prompt, "max_tokens": 16}
        body = {**defaults, "temperature": 0, **fields}
        return {name: value for name, value in body.items() if value is not None}

    async def ask(self, messages: Messages = "Hello!", **fields: Any) -> Reply:
        """Send a chat request; whatever comes is the answer."""
        url = f"{self.endpoint.base}/chat/completions"
        return await self.send("POST", url, json=self.chat_body(messages, **fields))

    async def ask_text(self, prompt: str = "Once upon a time", **fields: Any) -> Reply:
        """Send a text completion request; whatever comes is the answer."""
        url = f"{self.endpoint.base}/completions"
        return await self.send("POST", url, json=self.text_body(prompt, **fields))

    async def chat(self, messages: Messages = "Hello!", **fields: Any) -> dict[str, Any]:
        """A whole chat completion that keeps every rule."""
        reply = await self.ask(messages, **fields)
        return _completion(reply, "chat", fields.get("n", 1))

    async def text(self, prompt: str = "Once upon a time", **fields: Any) -> dict[str, Any]:
        """A whole text completion that keeps every rule."""
        reply = await self.ask_text(prompt, **fields)
        return _completion(reply, "text", fields.get("n", 1))

    async def stream_chat(self, messages: Messages = "Hello!", **fields: Any) -> Stream:
        """A streamed chat that keeps every rule; usage is asked for unless a field says else."""
        options = {"stream_options": {"include_usage": True}, **fields}
        reply = await self.ask(messages, stream=True, **options)
        return _stream(reply, "chat", fields.get("n", 1))

    async def stream_text(self, prompt: str = "Once upon a time", **fields: Any) -> Stream:
        """A streamed text completion that keeps every rule, as `stream_chat`."""
        options = {"stream_options": {"include_usage": True}, **fields}
        reply = await self.ask_text(prompt, stream=True, **options)
        return _stream(reply, "text", fields.get("n", 1))


def content_of(completion: Mapping[str, Any], index: int = 0) -> str:
    """The text of one choice of a whole answer."""
    choice = completion["choices"][index]
    text = choice["message"]["content"] if "message" in choice else choice["text"]
    return str(text or "")


def _completion(reply: Reply, kind: str, num_choices: int) -> dict[str, Any]:
    require(reply.status == 200, f"status {reply.status}: {reply.excerpt}")
    body: dict[str, Any] = reply.json()
    check_completion(body, kind=kind, num_choices=num_choices)
    return body


def _stream(reply: Reply, kind: str, num_choices: int) -> Stream:
    require(reply.status == 200, f"status {reply.status}: {reply.excerpt}")
    content_type = reply.headers.get("content-type", "")
    if not content_type.startswith("text/event-stream"):
        raise Failed(f"a stream's content type is {content_type!r}")
    stream = read_stream(reply.body, kind=kind, num_choices=num_choices)
    stream.arrivals_s = tuple(at_s for at_s, _ in reply.arrivals)
    stream.headers = reply.headers
    return stream


def _retry_after(reply: Reply) -> float | None:
    """Seconds that a 429 asks to wait; `None` if it does not say, or says too many."""
    try:
        wait_s = float(reply.headers["retry-after"])
    except (KeyError, ValueError):
        return None
    return wait_s if 0 <= wait_s <= MAX_RETRY_AFTER_S else None
