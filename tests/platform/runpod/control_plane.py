"""RunPod's side of the SDK's protocol, on loopback.

What the SDK does with it is in its `rp_job`, `rp_http`, `rp_scale` and `rp_ping`: it takes jobs by
long polls, one or several at a time, posts each piece of a stream and then the result, polls for
ids of jobs to stop, and pings.
"""

import asyncio
import json
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

WORKER = "worker-1"
API_KEY = "rpa_test"
_POLL_S = 0.1


@dataclass(slots=True)
class ControlPlane:
    """Hands out jobs and keeps what becomes of them.

    Attributes:
        pieces: What was streamed, by job.
        results: How each job ended, in order.
        progress: What was said of jobs on the way.
        pings: Ids of running jobs that pings named.
        batch_sizes: How many jobs were asked for at a time.
        refusals: Status codes that the next polls for jobs get.
        strangers: Requests without the worker's key.
    """

    port: int = 0
    pieces: dict[str, list[Any]] = field(default_factory=lambda: defaultdict(list))
    results: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    progress: list[tuple[str, Any]] = field(default_factory=list)
    pings: list[str] = field(default_factory=list)
    batch_sizes: list[int] = field(default_factory=list)
    refusals: list[int] = field(default_factory=list)
    strangers: list[str] = field(default_factory=list)
    _waiting: asyncio.Queue[dict[str, Any]] = field(default_factory=asyncio.Queue)
    _stops: asyncio.Queue[str] = field(default_factory=asyncio.Queue)
    _news: asyncio.Condition = field(default_factory=asyncio.Condition)

    @property
    def environment(self) -> Mapping[str, str]:
        """What RunPod tells a worker."""
        url = f"http://127.0.0.1:{self.port}"
        posted = f"{WORKER}/$ID?gpu=none"
        return {
            "RUNPOD_WEBHOOK_GET_JOB": f"{url}/job-take/$ID?gpu=none",
            "RUNPOD_WEBHOOK_POST_STREAM": f"{url}/job-stream/{posted}",
            "RUNPOD_WEBHOOK_POST_OUTPUT": f"{url}/job-done/{posted}",
            "RUNPOD_WEBHOOK_PING": f"{url}/ping/$RUNPOD_POD_ID",
            "RUNPOD_PING_INTERVAL": "1000",
            "RUNPOD_AI_API_KEY": API_KEY,
            "RUNPOD_POD_ID": WORKER,
            "RUNPOD_ENDPOINT_ID": "endpoint-1",
            "RUNPOD_SKIP_AUTO_SYSTEM_CHECKS": "true",
            "RUNPOD_SKIP_GPU_CHECK": "true",
        }

    def hand_out(self, job_id: str, job_input: object) -> None:
        """Have a job waiting."""
        self._waiting.put_nowait({"id": job_id, "input": job_input})

    def stop(self, job_id: str) -> None:
        """Have a job cancelled."""
        self._stops.put_nowait(job_id)

    async def run(self, job_id: str, job_input: object) -> dict[str, Any]:
        """Hand out a job and wait for its result."""
        self.hand_out(job_id, job_input)
        return await self.result(job_id)

    async def result(self, job_id: str, count: int = 1) -> dict[str, Any]:
        """Wait until a job has ended so many times; how it did last."""
        async with self._news:
            await self._news.wait_for(lambda: len(self.results_of(job_id)) >= count)
        return self.results_of(job_id)[-1]

    async def until_streamed(self, job_id: str, count: int) -> None:
        """Wait for so many pieces of a job."""
        async with self._news:
            await self._news.wait_for(lambda: len(self.pieces[job_id]) >= count)

    def results_of(self, job_id: str) -> list[dict[str, Any]]:
        """How a job ended, each time."""
        return [result for each, result in self.results if each == job_id]

    def make_app(self) -> web.Application:
        """Its paths."""
        app = web.Application(client_max_size=2**24, middlewares=[self._check_key])
        app.router.add_get("/job-take/{worker}", self._take)
        app.router.add_get("/job-take-batch/{worker}", self._take_batch)
        app.router.add_get("/job-stop/{worker}", self._stop)
        app.router.add_get("/ping/{worker}", self._ping)
        app.router.add_post("/job-stream/{worker}/{job}", self._stream)
        app.router.add_post("/job-done/{worker}/{job}", self._done)
        return app

    @web.middleware
    async def _check_key(self, request: web.Request, handler: Any) -> web.StreamResponse:
        if request.headers.get("Authorization") != API_KEY:
            self.strangers.append(request.path)
        response: web.StreamResponse = await handler(request)
        return response

    async def _take(self, _: web.Request) -> web.Response:
        jobs = await self._next_jobs(1)
        return web.json_response(jobs[0]) if jobs else self._nothing()

    async def _take_batch(self, request: web.Request) -> web.Response:
        jobs = await self._next_jobs(int(request.query["batch_size"]))
        return web.json_response(jobs) if jobs else self._nothing()

    def _nothing(self) -> web.Response:
        return web.Response(status=self.refusals.pop(0) if self.refusals else 204)

    async def _next_jobs(self, count: int) -> list[dict[str, Any]]:
        self.batch_sizes.append(count)
        jobs: list[dict[str, Any]] = []
        if self.refusals:
            return jobs
        try:
            async with asyncio.timeout(_POLL_S):
                jobs.append(await self._waiting.get())
        except TimeoutError:
            return jobs
        while len(jobs) < count and not self._waiting.empty():
            jobs.append(self._waiting.get_nowait())
        return jobs

    async def _stop(self, _: web.Request) -> web.Response:
        try:
            async with asyncio.timeout(_POLL_S):
                return web.json_response({"jobsToStop": [await self._stops.get()]})
        except TimeoutError:
            return web.Response(status=204)

    async def _ping(self, request: web.Request) -> web.Response:
        self.pings.append(request.query.get("job_id", ""))
        await self._tell()
        return web.Response()

    async def until_pinged(self, job_id: str) -> None:
        """Wait until a ping names a job."""
        async with self._news:
            await self._news.wait_for(lambda: any(job_id in ping for ping in self.pings))

    async def _stream(self, request: web.Request) -> web.Response:
        body = json.loads(await request.read())
        self.pieces[request.match_info["job"]].append(body["output"])
        await self._tell()
        return web.Response()

    async def _done(self, request: web.Request) -> web.Response:
        body = json.loads(await request.read())
        if body.get("status") == "IN_PROGRESS":
            self.progress.append((request.match_info["job"], body["output"]))
        else:
            self.results.append((request.match_info["job"], body))
        await self._tell()
        return web.Response()

    async def _tell(self) -> None:
        async with self._news:
            self._news.notify_all()


@asynccontextmanager
async def control_plane() -> AsyncIterator[ControlPlane]:
    """Run one on a free port."""
    plane = ControlPlane()
    runner = web.AppRunner(plane.make_app(), access_log=None, shutdown_timeout=0.5)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    plane.port = runner.addresses[0][1]
    try:
        yield plane
    finally:
        await runner.cleanup()
