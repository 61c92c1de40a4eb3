"""A small OpenAI-compatible provider that is right in everything, but for faults that are named.

It answers from a script, so that each check of interest passes; a fault changes one thing of what
leaves, as servers in the wild have it.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import orjson
from aiohttp import web

KEY = "sk-fake"
MODEL = "fake/model"
WORDS = ("One", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven")
CALLS = [("get_weather", '{"city": "Rome"}'), ("get_weather", '{"city": "Paris"}')]
RANGES = {
    "temperature": (0, 2),
    "top_p": (0, 1),
    "max_tokens": (1, 4096),
    "frequency_penalty": (-2, 2),
    "presence_penalty": (-2, 2),
    "n": (1, 1),
}
Spoil = Callable[[Any], Any]
"""Takes what would leave, gives what does."""


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One thing that is wrong.

    Attributes:
        stream: Changes the bytes of a stream.
        whole: Changes a whole completion.
        error: Changes an error object.
        status: Other statuses than the right ones.
        request: Changes the body of a request before it is looked at.
        models: Changes the list of models.
        monitor: Changes the monitor's document.
        breaks_off: Streams end in the middle of the connection.
        num_refused: So many of the first requests are a 429, with `Retry-After: 0`.
    """

    stream: Spoil = field(default=lambda body: body)
    whole: Spoil = field(default=lambda body: body)
    error: Spoil = field(default=lambda error: error)
    status: Mapping[int, int] = field(default_factory=dict)
    request: Spoil = field(default=lambda body: body)
    models: Spoil = field(default=lambda body: body)
    monitor: Spoil = field(default=lambda body: body)
    breaks_off: bool = False
    num_refused: int = 0


NONE = Fault()


class FakeProvider:
    """The handlers."""

    def __init__(self, fault: Fault) -> None:
        self._fault = fault
        self._num_requests = 0

    async def models(self, request: web.Request) -> web.Response:
        """The list in OpenAI's form."""
        item = {
            "id": MODEL,
            "object": "model",
            "created": 1,
            "owned_by": "fake",
            "context_length": 4096,
            "max_output_tokens": 4096,
            "pricing": {"prompt": "0.000001", "completion": "0.000002"},
        }
        return _json(self._fault.models({"object": "list", "data": [item]}))

    async def monitor(self, request: web.Request) -> web.Response:
        """The monitor's document."""
        price = {"unit": "token"}
        prompt = price | {"type": "prompt", "cost_usd": "0.000001"}
        completion = price | {"type": "completion", "cost_usd": "0.000002"}
        parameters = {"tools": {"type": "unknown"}, "structured_outputs": {"type": "boolean"}}
        text = {"type": "text", "supported_parameters": parameters, "pricing": [completion]}
        document = {
            "schema_version": "2.4",
            "id": MODEL,
            "name": "Fake",
            "input_modalities": [{"type": "text", "pricing": [prompt]}],
            "output_modalities": [text],
        }
        return _json(self._fault.monitor({"data": [document]}))

    async def chat(self, request: web.Request) -> web.StreamResponse:
        """Answers with words, with calls if there are tools, with JSON if there is a schema."""
        if request.headers.get("Authorization") != f"Bearer {KEY}":
            return self._refuse(401, "invalid_api_key")
        self._num_requests += 1
        if self._num_requests <= self._fault.num_refused:
            response = self._refuse(429, "rate_limit_exceeded")
            response.headers["Retry-After"] = "0"
            return response
        try:
            body = self._fault.request(orjson.loads(await request.read()))
        except orjson.JSONDecodeError:
            return self._refuse(400, "invalid_json")
        if not isinstance(body, dict) or not body.get("messages"):
            return self._refuse(400, "invalid_request", "messages")
        if body["model"] != MODEL:
            return self._refuse(404, "model_not_found")
        for name, (low, high) in RANGES.items():
            if not low <= body.get(name, 1) <= high:
                return self._refuse(400, "invalid_value", name)
        return await self._answer(request, body)

    async def _answer(self, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        calls = CALLS if body.get("tools") and body.get("tool_choice") != "none" else []
        text, reason = _say(body)
        count = len(text.split())
        usage = {"prompt_tokens": 7, "completion_tokens": count, "total_tokens": 7 + count}
        head = {"id": "gen-1", "created": 1, "model": MODEL, "system_fingerprint": "fp"}
        said: dict[str, Any] = {"role": "assistant", "content": None if calls else text}
        if calls:
            reason = "tool_calls"
            said["tool_calls"] = [_call(number) for number in range(len(calls))]
        if not body.get("stream"):
            choice = {"index": 0, "message": said, "finish_reason": reason, "logprobs": None}
            root = {"object": "chat.completion", "choices": [choice], "usage": usage}
            return _json(self._fault.whole({**head, **root}))
        head["object"] = "chat.completion.chunk"
        deltas = _call_deltas() if calls else [{"content": word} for word in _pieces(text)]
        return await self._stream(request, head, deltas, reason, usage)

    async def _stream(
        self,
        request: web.Request,
        head: dict[str, Any],
        deltas: list[dict[str, Any]],
        reason: str,
        usage: dict[str, int],
    ) -> web.StreamResponse:
        first = {"role": "assistant", "content": ""}
        chunks = [_chunk(head, delta) for delta in (first, *deltas)]
        chunks += [_chunk(head, {}, reason), {**head, "choices": [], "usage": usage}]
        payloads = [orjson.dumps(chunk) for chunk in chunks] + [b"[DONE]"]
        body = self._fault.stream(b"".join(b"data: " + each + b"\n\n" for each in payloads))
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        half = len(body) // 2
        await response.write(body[:half])
        await asyncio.sleep(0)  # so that a client sees two pieces
        if self._fault.breaks_off and request.transport is not None:
            request.transport.abort()
            return response
        await response.write(body[half:])
        return response

    def _refuse(self, status: int, code: str, param: str | None = None) -> web.Response:
        error = {"message": f"{param} is wrong", "type": "invalid_request_error"}
        body = {"error": self._fault.error(error | {"param": param, "code": code})}
        return _json(body, self._fault.status.get(status, status))


def _say(body: dict[str, Any]) -> tuple[str, str]:
    if body.get("response_format"):
        return '{"name": "Rome", "population": 3}', "stop"
    limit = body.get("max_completion_tokens", body.get("max_tokens"))
    words = list(WORDS[:limit])
    stop = body.get("stop")
    for word in [stop] if isinstance(stop, str) else stop or []:
        if word in words:
            return " ".join(words[: words.index(word)]), "stop"
    return " ".join(words), "length" if len(words) < len(WORDS) else "stop"


def _pieces(text: str) -> list[str]:
    return [word if not i else f" {word}" for i, word in enumerate(text.split(" "))]


def _call(number: int) -> dict[str, Any]:
    name, arguments = CALLS[number]
    function = {"name": name, "arguments": arguments}
    return {"id": f"call_{number}", "type": "function", "function": function}


def _call_deltas() -> list[dict[str, Any]]:
    deltas: list[dict[str, Any]] = []
    for number, (name, arguments) in enumerate(CALLS):
        begin = {**_call(number), "index": number, "function": {"name": name, "arguments": ""}}
        deltas.append({"tool_calls": [begin]})
        rest = {"index": number, "function": {"arguments": arguments}}
        deltas.append({"tool_calls": [rest]})
    return deltas


def _chunk(
    head: dict[str, Any], delta: dict[str, Any], reason: str | None = None
) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta, "finish_reason": reason, "logprobs": None}
    return {**head, "choices": [choice]}


def _json(body: Any, status: int = 200) -> web.Response:
    return web.Response(body=orjson.dumps(body), status=status, content_type="application/json")


@asynccontextmanager
async def fake_provider(fault: Fault = NONE) -> AsyncIterator[str]:
    """Serve on a free port; gives its address."""
    fake = FakeProvider(fault)
    app = web.Application()
    app.router.add_get("/v1/models", fake.models)
    app.router.add_get("/openrouter/models", fake.monitor)
    app.router.add_post("/v1/chat/completions", fake.chat)
    runner = web.AppRunner(app, shutdown_timeout=1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()
