"""The process: starting, draining, and what plugins may do in it."""

import asyncio
import json
import threading
from collections.abc import Awaitable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from provider_core import PermissionDenied, Principal, UsageRecord, hookimpl
from provider_core.interfaces import Batch
from provider_core.lifecycle import State
from provider_core.server import app
from provider_core.types import ModelSpec
from tests.serving import Serving, make_model_dir, saying, scripted_runner, serving
from tests.sse_checker import check_stream


async def get_json(served: Serving, path: str) -> tuple[int, Any]:
    """A GET's status and body."""
    async with served.session.get(served.url + path) as response:
        return response.status, await response.json()


async def test_the_socket_answers_before_the_model_is_loaded() -> None:
    """Probes say why it is not ready; requests get 503 with `Retry-After`."""
    async with serving(load=False) as served:
        assert (await get_json(served, "/livez"))[0] == 200
        status, body = await get_json(served, "/readyz")
        assert (status, body["reason"]) == (503, "starting")
        assert (await get_json(served, "/startupz"))[0] == 503
        response = await served.chat()
        assert response.status == 503
        assert int(response.headers["Retry-After"]) >= 1
        assert (await response.json())["error"]["code"] == "model_loading"
        await served.server.load()
        assert (await get_json(served, "/readyz"))[0] == 200
        assert (await served.chat()).status == 200


async def test_draining_finishes_what_runs_and_serves_who_has_not_noticed() -> None:
    """After the signal `/readyz` says 503; for a while requests are served, and connections closed.

    So whoever looks at `/readyz` now and then loses nothing.
    """
    go_on = threading.Event()
    async with serving(
        saying("Hello!", on_execute=lambda _: go_on.wait(30)), server={"drain_delay_s": 25}
    ) as served:
        running = asyncio.create_task(served.chat(stream=True))
        await served.wait_until(lambda: bool(served.server.dispatcher.runs))
        served.server.stop()
        draining = asyncio.create_task(served.server.drain())
        await served.wait_until(lambda: served.server.lifecycle.state is State.DRAINING)
        assert (await get_json(served, "/readyz"))[0] == 503
        late = asyncio.create_task(served.chat())
        await served.wait_until(lambda: len(served.server.dispatcher.runs) == 2)
        go_on.set()
        response, whole = await running, await late
        served.server.stop()  # a second signal: do not wait any longer
        await draining
    assert check_stream(await response.read()).texts == {0: "Hello!"}
    assert (whole.status, whole.headers["Connection"]) == (200, "close")
    assert [event["status"] for event in served.usage.events] == ["ok", "ok"]


async def test_what_outlasts_the_grace_is_cut_with_an_error_and_settled() -> None:
    """The stream ends with an error event, not with a bare close."""
    async with serving(
        scripted_runner(step_time_s=0.002), server={"grace_s": 3.2}, max_model_len=32768
    ) as served:
        running = asyncio.create_task(served.chat(stream=True, ignore_eos=True, max_tokens=30000))
        await served.wait_until(
            lambda: any(m.engine.load().num_generated_tokens > 3 for m in served.server.models)
        )
        await served.server.drain()
        response = await running
    stream = check_stream(await response.read())
    assert stream.error is not None
    assert stream.error["code"] == "draining"
    (event,) = served.usage.events
    assert (event["status"], event["error_code"]) == ("error", "draining")


async def test_a_removed_model_ends_its_requests_and_keeps_nobody(tmp_path: Path) -> None:
    """Its last request ends well; a server that closes before does not wait for it."""
    first = ModelSpec(id="first", source=str(make_model_dir(tmp_path / "first")), max_num_seqs=2)
    go_on = threading.Event()
    body = {"model": "first", "prompt": "x", "max_tokens": 3}
    async with serving(saying("Hello!", on_execute=lambda _: go_on.wait(30))) as served:
        models = served.server.models
        await models.load(first)
        running = asyncio.create_task(served.post("/v1/completions", body))
        await served.wait_until(lambda: bool(served.server.dispatcher.runs))
        removing = asyncio.create_task(models.remove("first"))
        await served.wait_until(lambda: len(models.specs) == 1)
        assert (await served.post("/v1/completions", body)).status == 404
        assert len(models.in_memory) == 2
        removing.cancel()
        go_on.set()
        assert (await running).status == 200
        await served.wait_until(lambda: len(models.in_memory) == 1)


class House:
    """A plugin that knows one guest, refuses long answers, counts and adds a route."""

    def __init__(self) -> None:
        self.records: list[UsageRecord] = []

    @hookimpl
    async def authenticate(self, headers: Mapping[str, str]) -> Principal | None:
        """Know a guest."""
        if headers.get("X-Guest") == "ada":
            return Principal(api_key_id="key_guest", account_id="ada")
        return None

    @hookimpl
    def admit_request(self, principal: Principal, max_tokens: int) -> Awaitable[None] | None:
        """Guests get short answers."""
        if principal.account_id == "ada" and max_tokens > 5:
            raise PermissionDenied("guests get five tokens", param="max_tokens")
        return None

    @hookimpl
    def request_finished(self, record: UsageRecord) -> None:
        """Remember, then fail: nobody else may notice."""
        self.records.append(record)
        raise RuntimeError("a plugin's own trouble")

    @hookimpl
    def setup_app(self, app: web.Application) -> None:
        """Say hello."""

        async def hello(_: web.Request) -> web.Response:
            return web.json_response({"hello": True})

        app.router.add_get("/hello", hello)


async def test_plugins_authenticate_admit_hear_and_add_routes() -> None:
    """The hooks at a request's edges are asked and isolated as their contracts say."""
    house = House()
    async with serving(plugins=(house,)) as served:
        body = {"model": "test-model", "prompt": "x", "max_tokens": 5}
        served.session.headers.pop("Authorization")
        response = await served.post("/v1/completions", body, headers={"X-Guest": "ada"})
        assert response.status == 200
        refused = await served.post(
            "/v1/completions", {**body, "max_tokens": 6}, headers={"X-Guest": "ada"}
        )
        assert refused.status == 403
        assert (await served.post("/v1/completions", body)).status == 401
        assert await get_json(served, "/hello") == (200, {"hello": True})
    (record,) = house.records
    (event,) = served.usage.events
    assert event["api_key_id"] == "key_guest"
    assert record.event["event_id"] == event["event_id"]


async def test_an_engine_that_fails_before_the_first_token_has_a_status() -> None:
    """502 with a body, streamed or not; the next request works."""
    failures = {0: RuntimeError("secret detail"), 1: RuntimeError("secret detail")}
    async with serving(saying("Hello!", failures=failures)) as served:
        for stream in (False, True):
            response = await served.chat(stream=stream)
            text = await response.text()
            assert response.status == 502
            assert json.loads(text)["error"]["code"] == "backend_error"
            assert "secret" not in text
        assert (await served.chat()).status == 200
        statuses = [event["status"] for event in served.usage.events]
    assert statuses == ["error", "error", "ok"]


async def test_bug_13_an_engine_that_fails_in_mid_stream_says_so() -> None:
    """An error event and the terminator, never a bare close or a `stop`."""
    has_begun = threading.Event()

    def fail_once_begun(batch: Batch) -> None:
        if batch.phase == "decode":
            has_begun.wait(30)

    runner = saying("Hello!", failures={3: RuntimeError("x")}, on_execute=fail_once_begun)
    async with serving(runner) as served:
        body = {"model": "test-model", "messages": [{"role": "user", "content": "hi"}]}
        async with served.session.post(
            served.url + "/v1/chat/completions", json={**body, "stream": True}
        ) as response:
            first = await response.content.readany()
            has_begun.set()
            stream = check_stream(first + await response.read())
        assert (await served.chat()).status == 200
    assert response.status == 200
    assert stream.error is not None
    assert stream.error["code"] == "backend_error"
    event = served.usage.events[0]
    assert (event["status"], event["http_status"]) == ("error", 200)


async def test_the_usage_line_says_how_long_a_request_waited() -> None:
    """The second of two requests for one slot is begun after the first."""
    go_on = threading.Event()
    runner = saying("Hello!", on_execute=lambda _: go_on.wait(30))
    async with serving(runner, max_num_seqs=1) as served:
        first = asyncio.create_task(served.chat())
        await served.wait_until(lambda: len(served.server.dispatcher.runs) == 1)
        second = asyncio.create_task(served.chat())
        await served.wait_until(lambda: len(served.server.dispatcher.runs) == 2)
        go_on.set()
        await asyncio.gather(first, second)
        events = served.usage.events
    assert events[0]["admitted_at"] <= events[0]["started_at"] <= events[0]["first_token_at"]
    assert events[0]["started_at"] < events[1]["started_at"]


async def test_an_engine_that_hangs_does_not_keep_a_stopping_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """When a step never returns, closing ends the process instead of waiting for it."""
    monkeypatch.setattr(app, "_FLUSH_S", 0.05)
    is_hanging, let_go = threading.Event(), threading.Event()
    codes: list[int] = []

    def hang(_: object) -> None:
        is_hanging.set()
        let_go.wait(30)

    async with serving(saying("Hello!", on_execute=hang)) as served:
        monkeypatch.setattr(served.server, "_exit_now", codes.append)
        running = asyncio.create_task(served.chat())
        await served.wait_until(is_hanging.is_set)
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
        await served.server.close()
        assert codes == [70]
        let_go.set()


async def test_the_metrics_count_answers_by_route_and_code() -> None:
    """Refused requests too; a path that nobody serves has one name, however it was spelled."""
    async with serving() as served:
        await served.chat()
        await served.chat(temperature=9)
        for path in ("/nope", "/nope/again"):
            async with served.session.get(served.url + path):
                pass
        async with served.session.get(served.url + "/metrics") as response:
            lines = (await response.text()).splitlines()
    counted = [line for line in lines if line.startswith("provider_http_responses_total{")]
    assert any('code="200"' in line and "/v1/chat/completions" in line for line in counted)
    assert any('code="400"' in line and "/v1/chat/completions" in line for line in counted)
    assert [line.split()[-1] for line in counted if "unmatched" in line] == ["2.0"]
