"""A function of Lambda: a real server, and the Runtime API on loopback."""

import json
import os
import signal
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from tests.platform.lambda_function.http_events import rest_event, url_event
from tests.platform.lambda_function.runtime_api import RuntimeApiServer, runtime_api
from tests.platform.scripted_process import PlatformProcess, platform_process
from tests.serving import KEY
from tests.sse_checker import check_stream

pytestmark = pytest.mark.asyncio(loop_scope="module")

CHAT: dict[str, Any] = {"model": "test-model", "messages": [{"role": "user", "content": "hi"}]}
LONG: dict[str, Any] = {**CHAT, "ignore_eos": True, "max_tokens": 2000}
AUTHORIZED = {"authorization": f"Bearer {KEY}", "content-type": "application/json"}
CONCURRENCY = 120  # more than aiohttp's client opens connections by default


def chat_event(body: dict[str, Any], **headers: str) -> dict[str, Any]:
    """A conversation through a function URL."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return url_event("POST", "/v1/chat/completions", {**AUTHORIZED, **named}, json.dumps(body))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def lambda_api() -> AsyncIterator[RuntimeApiServer]:
    """Lambda."""
    async with runtime_api() as api:
        yield api


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def function(
    lambda_api: RuntimeApiServer, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[PlatformProcess]:
    """A function on a managed instance: many invocations at a time."""
    folder = tmp_path_factory.mktemp("lambda")
    environment = {**lambda_api.environment, "AWS_LAMBDA_MAX_CONCURRENCY": str(CONCURRENCY)}
    async with platform_process(folder, "lambda", environment) as process:
        await lambda_api.until_asked()
        yield process


@pytest.mark.usefixtures("function")
async def test_a_streamed_answer_comes_with_its_prelude_and_in_pieces(
    lambda_api: RuntimeApiServer,
) -> None:
    """Status and headers first, then the events as they are made; no trailer when all went well."""
    body = {**LONG, "stream": True, "max_tokens": 30}
    answer = await lambda_api.call(chat_event(body))
    assert answer.path == "response"
    assert answer.headers["lambda-runtime-function-response-mode"] == "streaming"
    assert answer.headers["content-type"] == "application/vnd.awslambda.http-integration-response"
    assert answer.prelude["statusCode"] == 200
    assert answer.prelude["headers"]["Content-Type"].startswith("text/event-stream")
    assert "Transfer-Encoding" not in answer.prelude["headers"]
    assert len(answer.chunks) > 10
    assert check_stream(answer.payload).error is None
    assert answer.trailers == {}


async def test_a_whole_answer_is_billed_under_the_caller_s_id(
    lambda_api: RuntimeApiServer, function: PlatformProcess
) -> None:
    """It goes the same way: one piece behind the prelude."""
    answer = await lambda_api.call(chat_event(CHAT, x_request_id="whole"))
    assert json.loads(answer.payload)["choices"][0]["message"]["content"] == "Hello!"
    await function.until(lambda: bool(bills_of(function, "whole")))
    assert bills_of(function, "whole")[0]["platform"] == "lambda"


def bills_of(function: PlatformProcess, request_id: str) -> list[dict[str, Any]]:
    """What was charged for a request."""
    return [event for event in function.usage if event["client_request_id"] == request_id]


@pytest.mark.usefixtures("function")
@pytest.mark.parametrize(
    ("event", "status", "text"),
    [
        (url_event("GET", "/v1/models", AUTHORIZED), 200, '"test-model"'),
        (url_event("GET", "/readyz", {}), 200, "ready"),
        (url_event("GET", "/v1/models", {}), 401, "invalid_api_key"),
        (
            url_event("GET", "/v1/models", {"authorization": "AWS4-HMAC-SHA256 Credential=a"}),
            401,
            "missing or unknown API key",
        ),
        (
            url_event(
                "GET", "/v1/models", {"authorization": "AWS4-HMAC-SHA256 C", "x-api-key": KEY}
            ),
            200,
            '"test-model"',
        ),
        (url_event("GET", "/prod/v1/models", AUTHORIZED, stage="prod"), 200, '"test-model"'),
        (url_event("GET", "/nowhere", AUTHORIZED), 404, "no such path"),
        (
            rest_event("GET", "/openrouter/models", {}, query={"format": "legacy"}),
            200,
            "test-model",
        ),
        (
            rest_event("POST", "/v1/chat/completions", AUTHORIZED, json.dumps(CHAT), base64=True),
            200,
            '"Hello!"',
        ),
        (url_event("GET", "/metrics", {}), 404, "no such path"),
    ],
)
async def test_every_http_event_is_the_request_that_it_says(
    lambda_api: RuntimeApiServer, event: dict[str, Any], status: int, text: str
) -> None:
    """With the refusals of the server itself, whoever is in front."""
    answer = await lambda_api.call(event)
    assert answer.prelude["statusCode"] == status
    assert text in answer.payload.decode()


@pytest.mark.usefixtures("function")
@pytest.mark.parametrize(
    "event",
    [
        {"Records": []},
        "text",
        {"httpMethod": "GET"},
        b"[" * 10**5,
        {**url_event("GET", "/v1/models", {}), "requestContext": {"http": {"method": None}}},
        url_event("GE T", "/v1/models", {}),
        url_event("GET", "/v1/models", {"x-title": "a\r\nb: c"}),
        {**url_event("GET", "/v1/models", {}), "headers": {"x-title": 1}},
        {**url_event("GET", "/v1/models", {}), "headers": {"x-title": {}}},
    ],
)
async def test_an_event_that_is_no_request_is_an_error_of_the_function(
    lambda_api: RuntimeApiServer, event: object
) -> None:
    """Lambda shows it to whoever invoked it so."""
    answer = await lambda_api.call(event)
    assert answer.path == "error"
    assert answer.headers["lambda-runtime-function-error-type"] == "Provider.UnknownEvent"
    assert json.loads(answer.body)["errorType"] == "Provider.UnknownEvent"


async def test_invocations_run_side_by_side_where_lambda_allows_it(
    lambda_api: RuntimeApiServer, function: PlatformProcess
) -> None:
    """As many polls wait as it said, and one answer does not wait for another."""
    await lambda_api.until_asked(CONCURRENCY)
    long = lambda_api.invoke(chat_event({**LONG, "max_tokens": 300}, x_request_id="long"))
    await lambda_api.call(chat_event(CHAT))
    assert long not in lambda_api.answers
    await lambda_api.answer(long)
    await lambda_api.until_asked(CONCURRENCY)
    assert lambda_api.most_waiting == CONCURRENCY
    assert len(bills_of(function, "long")) == 1


async def test_generating_ends_before_lambda_ends_the_invocation(
    lambda_api: RuntimeApiServer, function: PlatformProcess
) -> None:
    """A second before; a stream ends in form, and is not billed."""
    event = chat_event({**LONG, "stream": True}, x_request_id="late")
    answer = await lambda_api.call(event, timeout_s=1.4)
    error = check_stream(answer.payload).error
    assert error is not None
    assert error["code"] == "deadline_exceeded"
    await function.until(lambda: bool(bills_of(function, "late")))
    assert bills_of(function, "late")[0]["cost"] == "0"


async def test_an_answer_that_lambda_cuts_ends_the_generation(
    lambda_api: RuntimeApiServer, function: PlatformProcess
) -> None:
    """Whoever waited is gone: what was handed over is billed."""
    lambda_api.cut_after = 3
    lambda_api.invoke(chat_event({**LONG, "stream": True}, x_request_id="cut"))
    await function.until(lambda: bool(bills_of(function, "cut")))
    (bill,) = bills_of(function, "cut")
    assert bill["status"] == "cancelled"
    assert 0 < bill["completion_tokens"] < 2000
    assert (await lambda_api.call(chat_event(CHAT))).prelude["statusCode"] == 200


async def test_every_bill_is_in_the_log_before_the_next_invocation_is_asked_for(
    tmp_path: Path,
) -> None:
    """From there Lambda may freeze the process, and end it without waking it."""
    async with (
        runtime_api() as api,
        platform_process(tmp_path, "lambda", api.environment) as function,
    ):
        for number in range(1, 6):
            await api.until_asked()
            await api.call(chat_event(CHAT))
            await api.until_asked()
            os.kill(function.process.pid, signal.SIGSTOP)
            assert len(function.usage) == number
            os.kill(function.process.pid, signal.SIGCONT)
        os.kill(function.process.pid, signal.SIGSTOP)
        function.process.kill()
        assert api.most_waiting == 1


async def test_a_function_behind_a_buffering_door_answers_in_one_document(tmp_path: Path) -> None:
    """As its setting says, which must be that of the URL or the API."""
    environment = {"PROVIDER_LAMBDA_INVOKE_MODE": "buffered"}
    async with (
        runtime_api() as api,
        platform_process(tmp_path, "lambda", {**api.environment, **environment}) as function,
    ):
        answer = await api.call(chat_event(CHAT))
        document = json.loads(answer.body)
        assert (document["statusCode"], document["isBase64Encoded"]) == (200, False)
        assert "Hello!" in document["body"]
        assert document["headers"]["Content-Type"].startswith("application/json")
        await api.until_asked()
        assert await function.stop() == 0  # what waits for an invocation ends at once
    assert function.events[-1]["event"] == "server.stopped"


async def test_a_start_that_fails_is_told_to_lambda(tmp_path: Path) -> None:
    """With the reason; nothing is asked for."""
    async with (
        runtime_api() as api,
        platform_process(tmp_path, "lambda", api.environment, "fail") as function,
    ):
        answer = await api.answer("init")
        assert await function.process.wait() == 2
    assert "no such weights" in json.loads(answer.body)["errorMessage"]
    assert answer.headers["lambda-runtime-function-error-type"] == "Provider.StartFailed"
    assert api.most_waiting == 0


async def test_a_stop_signal_lets_an_invocation_end(tmp_path: Path) -> None:
    """What was taken is answered, and no more is taken, through the port neither."""
    grace = {"PROVIDER_SERVER__GRACE_S": "20"}
    async with (
        runtime_api() as api,
        platform_process(tmp_path, "lambda", {**api.environment, **grace}) as function,
        aiohttp.ClientSession(headers=AUTHORIZED) as visitor,
    ):
        running = api.invoke(chat_event({**LONG, "stream": True, "max_tokens": 400}))
        journal = function.folder / "data/journal"
        await function.until(
            lambda: any(b'"rec":"O"' in path.read_bytes() for path in journal.glob("*.jnl"))
        )
        (url,) = function.addresses
        async with visitor.get(f"{url}/livez") as reply:
            assert reply.status == 200
        function.process.send_signal(signal.SIGTERM)
        await function.until(lambda: not is_listening(url))
        async with visitor.post(f"{url}/v1/chat/completions", json=CHAT) as refused:
            assert (refused.status, refused.headers["Retry-After"]) == (503, "1")
        assert await function.process.wait() == 0
        answer = await api.answer(running)
    assert check_stream(answer.payload).error is None
    assert [bill["status"] for bill in function.usage] == ["ok"]


def is_listening(url: str) -> bool:
    """Whether new connections are taken."""
    host, _, port = url.removeprefix("http://").partition(":")
    with socket.socket() as client:
        return client.connect_ex((host, int(port))) == 0
