"""The way into the application for workers: HTTP in every respect but the port."""

import asyncio
import stat
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from provider_core import ConfigurationError, ModelSpec, Unavailable, hookimpl
from provider_core.lifecycle import Lifecycle
from provider_core.server.app import EXIT_WORKER_FAILED
from provider_core.server.in_process import IN_PROCESS, InProcess, Worker
from provider_core.settings import Settings
from tests.serving import KEY, scripted_runner, serving
from tests.sse_checker import check_stream

AUTHORIZED = {"Authorization": f"Bearer {KEY}"}
LONG: dict[str, Any] = {"max_tokens": 2000, "ignore_eos": True}


def chat(**fields: Any) -> dict[str, Any]:
    """A chat request's body."""
    return {"model": "test-model", "messages": [{"role": "user", "content": "hi"}], **fields}


class Handler:
    """A platform's plugin."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker

    @hookimpl
    def setup_app(self, app: web.Application) -> None:
        """Take work."""
        app[IN_PROCESS].work(self._worker)


async def idle(process: InProcess) -> None:
    """Wait for nothing but the end."""
    await process.stopping.wait()


async def post(process: InProcess, body: dict[str, Any]) -> tuple[int, bytes]:
    """Ask the application."""
    async with (
        process.open_session() as session,
        session.post("/v1/chat/completions", json=body, headers=AUTHORIZED) as answer,
    ):
        return answer.status, await answer.read()


async def test_a_worker_reaches_what_every_client_reaches() -> None:
    """Whole and streamed answers, their usage lines, refusals and ids are the same."""
    async with serving(plugins=(Handler(idle),)) as served:
        process = served.server.in_process
        status, body = await post(process, chat(stream=True))
        assert (status, check_stream(body).texts) == (200, {0: "Hello!"})
        assert (await post(process, chat()))[0] == 200
        assert [event["status"] for event in served.usage.events] == ["ok", "ok"]
        async with process.open_session() as session:
            async with session.post("/v1/chat/completions", json=chat()) as refused:
                assert refused.status == 401
                assert refused.headers["X-Request-Id"].startswith("req-")
            async with session.get("/metrics") as hidden:
                assert hidden.status == 404  # it may act for somebody far away


async def test_closing_an_answer_early_is_leaving() -> None:
    """The generation is cancelled and billed as far as it was handed over."""
    async with serving(scripted_runner(step_time_s=0.001), plugins=(Handler(idle),)) as served:
        process = served.server.in_process
        async with (
            process.open_session() as session,
            session.post(
                "/v1/chat/completions", json=chat(stream=True, **LONG), headers=AUTHORIZED
            ) as answer,
        ):
            await answer.content.readany()
            await answer.content.readany()
        await served.settled()
        (event,) = served.usage.events
    assert (event["status"], event["cancel_stage"]) == ("cancelled", "decode")
    assert 0 < event["completion_tokens"] <= event["generated_tokens"] < 2000


async def test_cancelling_a_request_is_leaving() -> None:
    """A whole answer that nobody waits for any more costs nothing."""
    async with serving(scripted_runner(step_time_s=0.001), plugins=(Handler(idle),)) as served:
        asking = asyncio.create_task(post(served.server.in_process, chat(**LONG)))
        await served.wait_until(lambda: bool(served.server.dispatcher.runs))
        asking.cancel()
        await served.settled()
        (event,) = served.usage.events
    assert (event["status"], event["cost"]) == ("cancelled", "0")


async def test_many_may_come_at_once() -> None:
    """Before the first is let in: a full queue would turn the others away."""
    async with (
        serving(plugins=(Handler(idle),)) as served,
        served.server.in_process.open_session() as session,
    ):
        answers = await asyncio.gather(*(session.get("/livez") for _ in range(400)))
    assert [answer.status for answer in answers] == [200] * 400


async def test_the_socket_is_for_this_user_and_goes_with_the_server() -> None:
    """Nobody else may pass as a platform."""
    async with serving(plugins=(Handler(idle),)) as served:
        folder = Path(served.server.in_process.socket_path).parent
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert not folder.exists()


async def test_without_a_worker_there_is_no_socket() -> None:
    """Other starts pay nothing for it."""
    async with serving() as served:
        assert served.server.in_process.socket_path == ""


async def test_a_route_of_a_plugin_can_call_another() -> None:
    """It needs the socket and no worker."""

    class Greeter:
        @hookimpl
        def setup_app(self, app: web.Application) -> None:
            app[IN_PROCESS].enable()
            app.router.add_get("/hello", self.hello)

        async def hello(self, request: web.Request) -> web.Response:
            status, body = await post(request.app[IN_PROCESS], chat())
            return web.Response(status=status, body=body)

    async with (
        serving(plugins=(Greeter(),)) as served,
        served.session.get(f"{served.url}/hello") as answer,
    ):
        assert b'"Hello!"' in await answer.read()


async def test_a_worker_waits_for_the_models() -> None:
    """`until_ready` returns when requests are served, and models are then known."""
    seen: list[list[str]] = []

    async def look(process: InProcess) -> None:
        seen.append([spec.id for spec in process.specs])
        await process.until_ready()
        seen.append([spec.id for spec in process.specs])
        await process.stopping.wait()

    async with serving(plugins=(Handler(look),), load=False) as served:
        await served.wait_until(lambda: len(seen) == 1)
        await served.server.load()
        await served.wait_until(lambda: len(seen) == 2)
    assert seen == [[], ["test-model"]]


async def test_a_worker_hears_why_the_start_failed() -> None:
    """So that it can tell its platform."""
    heard: list[str] = []

    async def listen(process: InProcess) -> None:
        try:
            await process.until_ready()
        except Unavailable as error:
            heard.append(error.message)

    def refuse(_: ModelSpec) -> Any:
        raise ConfigurationError("no such weights")

    async with serving(refuse, plugins=(Handler(listen),), load=False) as served:
        with pytest.raises(ConfigurationError):
            await served.server.load()
    assert len(heard) == 1
    assert "no such weights" in heard[0]


async def test_what_a_worker_took_is_answered_before_the_server_drains() -> None:
    """Its requests are served although the stop signal came first, and probes tell of that."""
    answers: list[int] = []

    async def take(process: InProcess) -> None:
        await process.stopping.wait()  # taken a moment before
        await process.until_ready()
        answers.append((await post(process, chat()))[0])
        async with process.open_session() as session, session.get("/readyz") as answer:
            answers.append(answer.status)

    async with serving(plugins=(Handler(take),)) as served:
        await served.server.drain()
    assert answers == [200, 503]


async def test_while_a_worker_finishes_others_are_refused() -> None:
    """Who comes by the port is told to come again; what runs, and what was taken, is answered."""
    may_go_on = asyncio.Event()
    answers: list[int] = []

    async def take(process: InProcess) -> None:
        await process.stopping.wait()
        await may_go_on.wait()
        answers.append((await post(process, chat()))[0])

    async with (
        serving(scripted_runner(step_time_s=0.001), plugins=(Handler(take),)) as served,
        aiohttp.ClientSession(headers=AUTHORIZED) as early,
    ):
        url = f"{served.url}/v1/chat/completions"
        async with early.get(f"{served.url}/livez") as reply:
            assert reply.status == 200
        running = asyncio.create_task(
            served.post("/v1/chat/completions", chat(**{**LONG, "max_tokens": 500}))
        )
        await served.wait_until(lambda: bool(served.server.dispatcher.runs))
        draining = asyncio.create_task(served.server.drain())
        await served.wait_until(lambda: not served.server.lifecycle.is_serving)
        async with early.post(url, json=chat()) as refused:
            assert (refused.status, refused.headers["Connection"]) == (503, "close")
            assert int(refused.headers["Retry-After"]) >= 1
            assert (await refused.json())["error"]["code"] == "draining"
        with pytest.raises(aiohttp.ClientConnectionError):
            await early.get(f"{served.url}/livez")
        may_go_on.set()
        await draining
        assert (answers, (await running).status) == ([200], 200)


async def test_a_second_signal_waits_for_no_worker() -> None:
    """Whoever presses twice is in a hurry."""

    async def stay(_: InProcess) -> None:
        await asyncio.Event().wait()

    async with serving(plugins=(Handler(stay),)) as served:
        served.server.stop()
        served.server.stop()
        await served.server.drain()


@pytest.mark.parametrize("ends_badly", [True, False])
async def test_a_worker_that_ends_by_itself_ends_the_process(*, ends_badly: bool) -> None:
    """The platform starts another; nobody waits for work that never comes."""

    async def give_up(_: InProcess) -> None:
        if ends_badly:
            raise RuntimeError("the platform is gone")

    async with serving(plugins=(Handler(give_up),)) as served:
        await asyncio.wait_for(served.server.stopping.wait(), 10)
        assert served.server.exit_code == EXIT_WORKER_FAILED


def test_a_process_works_for_one_platform() -> None:
    """Two workers are a mistake that stops the start."""
    process = InProcess(Settings(), Lifecycle())
    process.work(idle)
    with pytest.raises(ConfigurationError, match="two plugins"):
        process.work(idle)


@pytest.mark.parametrize(("waiting", "is_logged"), [([2, 1, 0], True), ([1], False)])
async def test_a_worker_can_wait_for_the_log(waiting: list[int], *, is_logged: bool) -> None:
    """Until no usage line waits, or for so long and no longer."""
    left = iter(waiting)
    look: Callable[[], int] = lambda: next(left, waiting[-1])  # noqa: E731 - a stub
    process = InProcess(Settings(), Lifecycle(), num_unlogged=look)
    logged: Awaitable[bool] = process.until_logged(0.05 if not is_logged else 10)
    assert await logged is is_logged
