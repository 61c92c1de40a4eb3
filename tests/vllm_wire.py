"""vLLM's wire over our own engine: `/v1/models` and streamed `/v1/completions` with token ids.

Written after vLLM's entrypoints/openai/completion/{protocol,serving}.py. Fields that it does not
have are refused.
"""

import asyncio
import itertools
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from aiohttp import web

from provider_core.engine import LLMEngine
from provider_core.interfaces import ModelRunner
from provider_core.types import EngineOutput, GenerationRequest, SamplingParams, TokenLogprobs

FIELDS = frozenset(
    {
        *("cache_salt", "frequency_penalty", "ignore_eos", "logit_bias", "logprobs", "max_tokens"),
        *("min_p", "min_tokens", "model", "presence_penalty", "prompt", "repetition_penalty"),
        *("return_token_ids", "return_tokens_as_token_ids", "seed", "stop_token_ids", "stream"),
        *("stream_options", "temperature", "top_k", "top_p"),
    }
)
MODEL = "org/model"


class VllmWire:
    """A server of one model, on the loop that it is started on.

    Attributes:
        bodies: Of the requests, in order.
        num_open: Requests whose connection is open.
        statuses: Answered to the next requests in place of a completion.
    """

    def __init__(self, runner: ModelRunner, *, gives_ids: bool = True) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.num_open = 0
        self.statuses: list[int] = []
        self._runner = runner
        self._gives_ids = gives_ids
        self._request_ids = map(str, itertools.count())

    async def start(self, port: int = 0) -> int:
        """Listen on a port of this machine; which one."""
        app = web.Application()
        app.router.add_get("/v1/models", self._models)
        app.router.add_post("/v1/completions", self._completions)
        self._app = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0)
        await self._app.setup()
        site = web.TCPSite(self._app, "127.0.0.1", port)
        await site.start()
        self._engine = LLMEngine(self._runner)
        address: tuple[str, int] = self._app.addresses[0]
        return address[1]

    async def stop(self) -> None:
        """Break off what is open, and listen no more."""
        await self._app.cleanup()
        await self._engine.close()

    async def _models(self, _: web.Request) -> web.Response:
        length = self._runner.info.max_model_len
        entry = {"id": MODEL, "owned_by": "vllm", "max_model_len": length}
        return web.json_response({"object": "list", "data": [entry]})

    async def _completions(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.bodies.append(body)
        if self.statuses:
            return web.Response(status=self.statuses.pop(0), headers={"Retry-After": "7"})
        if body["model"] != MODEL or body.keys() - FIELDS:
            return web.json_response({"error": {"code": 400}}, status=400)
        outputs: asyncio.Queue[EngineOutput] = asyncio.Queue()
        sequence = GenerationRequest(
            request_id=next(self._request_ids),
            prompt_token_ids=tuple(body["prompt"]),
            sampling=_sampling(body),
        )
        self._engine.submit(sequence, outputs.put_nowait)
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        self.num_open += 1
        try:
            await response.prepare(request)
            await self._stream(response, sequence, outputs)
        finally:
            self.num_open -= 1
            self._engine.abort(sequence.request_id)
        return response

    async def _stream(
        self,
        response: web.StreamResponse,
        sequence: GenerationRequest,
        outputs: "asyncio.Queue[EngineOutput]",
    ) -> None:
        finish_reason, num_cached = None, 0
        while finish_reason is None:
            output = await outputs.get()
            finish_reason = output.finish_reason
            num_cached += output.num_cached_tokens
            if output.token_ids or finish_reason:
                await _send(response, {"choices": [self._choice(output)]})
        usage = {"prompt_tokens_details": {"cached_tokens": num_cached}}
        await _send(response, {"choices": [], "usage": usage})
        await response.write(b"data: [DONE]\n\n")

    def _choice(self, output: EngineOutput) -> dict[str, Any]:
        choice: dict[str, Any] = {
            "index": 0,
            "text": "".join(map(chr, output.token_ids)),
            "finish_reason": output.finish_reason,
            "stop_reason": output.stop_token_id,
            "logprobs": _logprobs(output.logprobs) if output.logprobs else None,
        }
        return choice | ({"token_ids": output.token_ids} if self._gives_ids else {})


def _sampling(body: dict[str, Any]) -> SamplingParams:
    same = (
        *("max_tokens", "min_tokens", "temperature", "top_p", "top_k", "min_p", "ignore_eos"),
        *("frequency_penalty", "presence_penalty", "repetition_penalty", "logprobs"),
    )
    seed = body.get("seed")
    return SamplingParams(
        **{name: body[name] for name in same if name in body},
        seed=None if seed is None else seed % 2**64,
        logit_bias=tuple((int(i), bias) for i, bias in body.get("logit_bias", {}).items()),
        stop_token_ids=frozenset(body.get("stop_token_ids", ())),
    )


def _logprobs(entries: tuple[TokenLogprobs, ...]) -> dict[str, Any]:
    return {
        "tokens": [f"token_id:{entry.token_id}" for entry in entries],
        "token_logprobs": [entry.logprob for entry in entries],
        "top_logprobs": [
            {
                f"token_id:{i}": logprob
                for i, logprob in (*entry.top, (entry.token_id, entry.logprob))
            }
            for entry in entries
        ],
    }


async def _send(response: web.StreamResponse, event: dict[str, Any]) -> None:
    await response.write(b"data: " + json.dumps(event).encode() + b"\n\n")


@contextmanager
def vllm_wire(make_wire: Callable[[], VllmWire]) -> Iterator[str]:
    """A server on a thread of its own, for tests whose loops come and go; its base URL."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="vllm-wire")
    thread.start()
    wire = make_wire()
    try:
        port = asyncio.run_coroutine_threadsafe(wire.start(), loop).result(10)
        yield f"http://127.0.0.1:{port}/v1"
        asyncio.run_coroutine_threadsafe(wire.stop(), loop).result(10)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
