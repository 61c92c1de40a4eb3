"""One job: a request of the server, its answer passed on as it comes."""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import aclosing
from time import monotonic
from typing import Any
from weakref import WeakValueDictionary

import aiohttp

from provider_core.server.in_process import open_session
from provider_runpod.coalescing import coalesce
from provider_runpod.facts import Facts
from provider_runpod.shapes import JobCall, MalformedJob, read_job

Job = Mapping[str, Any]
"""What RunPod hands out: `id`, `input` and whatever else."""

_KEY_HEADERS = {"authorization", "x-api-key", "x-goog-api-key"}


class Jobs:
    """Answers jobs.

    Args:
        facts: Of the server.
        tell_progress: Tells RunPod how a job is, without waiting.
    """

    def __init__(self, facts: Facts, tell_progress: Callable[[Job, Any], None]) -> None:
        self._facts = facts
        self._tell_progress = tell_progress
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def check_ready(self) -> None:
        """Refuse to take jobs while the server is not ready.

        Raises:
            RuntimeError: It is not.
        """
        async with (
            open_session(self._facts.socket_path) as session,
            session.get("/readyz") as answer,
        ):
            if answer.status != 200:
                raise RuntimeError(f"the server is not ready: {await answer.text()}")

    async def handle(self, job: Job) -> AsyncIterator[Any]:  # Any: JSON, or a stream's text
        """Answer one job; closing this early leaves as a client does.

        Yields:
            Text of whole events for a streamed answer, and its JSON for any other; for a failure
            `{"error": text}`, which the SDK makes the job's end.
        """
        try:
            call = read_job(job.get("input"), default_model=self._facts.model)
        except MalformedJob as error:
            yield {"error": str(error)}
            return
        turn = self._turns.setdefault(job["id"], asyncio.Lock())
        async with turn:  # a job handed out twice is answered twice, by one generation
            try:
                async with aclosing(self._answer(job, call)) as pieces:
                    async for piece in pieces:
                        yield piece
            except aiohttp.ClientError:
                yield {"error": "the server ended before its answer"}

    async def _answer(self, job: Job, call: JobCall) -> AsyncGenerator[Any]:
        ticking = asyncio.create_task(self._tick(job))
        try:
            async with (
                open_session(self._facts.socket_path) as session,
                session.request(
                    call.method,
                    call.path,
                    json=call.body,
                    headers=self._headers(job, call),
                ) as answer,
            ):
                if answer.content_type == "text/event-stream":
                    ticking.cancel()
                    async for text in coalesce(
                        answer.content,
                        window_s=self._facts.stream_window_s,
                        max_bytes=self._facts.stream_window_bytes,
                    ):
                        yield text
                else:
                    text = await answer.text()
                    ticking.cancel()
                    yield {"error": text} if answer.status >= 400 else _read(answer, text)
        finally:
            ticking.cancel()

    async def _tick(self, job: Job) -> None:
        """Say from time to time that a job runs."""
        started_s = monotonic()
        while self._facts.progress_s > 0:
            await asyncio.sleep(self._facts.progress_s)
            self._tell_progress(job, {"running_s": round(monotonic() - started_s)})

    def _headers(self, job: Job, call: JobCall) -> dict[str, str]:
        """A job's own headers, its key and its id; the id also keeps a retry from being billed."""
        named = {name.lower() for name in call.headers}
        headers = dict(call.headers)
        if self._facts.api_key is not None and not named & _KEY_HEADERS:
            headers["Authorization"] = f"Bearer {self._facts.api_key}"
        if "x-request-id" not in named:
            headers["X-Request-Id"] = job["id"]
        if call.method == "POST" and "idempotency-key" not in named:
            headers["Idempotency-Key"] = f"runpod-{job['id']}"
        return headers


def _read(answer: aiohttp.ClientResponse, text: str) -> Any:
    return json.loads(text) if answer.content_type == "application/json" else text
