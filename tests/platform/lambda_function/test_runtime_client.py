"""The client of the Runtime API where a whole function is too much to break."""

import asyncio
import time
from collections.abc import AsyncIterator

import aiohttp
import pytest

from provider_core import Unavailable
from provider_core.lifecycle import Lifecycle
from provider_core.server.in_process import InProcess
from provider_core.settings import Settings
from provider_lambda import worker
from provider_lambda.events import write_prelude
from provider_lambda.runtime_api import RuntimeApi, RuntimeApiError
from provider_lambda.settings import LambdaEnvironment, LambdaSettings
from provider_lambda.worker import Invocations, until_started
from tests.platform.lambda_function.runtime_api import runtime_api


async def broken(*chunks: bytes) -> AsyncIterator[bytes]:
    """A body that breaks."""
    for chunk in chunks:
        yield chunk
    raise aiohttp.ClientPayloadError("gone")


async def test_a_stream_that_breaks_says_so_in_trailers() -> None:
    """Lambda tells the caller, who has a part of the answer already."""
    async with runtime_api() as server:
        server.invoke({})
        async with RuntimeApi(server.environment["AWS_LAMBDA_RUNTIME_API"]) as api:
            invocation = await api.next()
            with pytest.raises(aiohttp.ClientPayloadError):
                await api.stream(invocation, write_prelude(200, []), broken(b"a", b"", b"bc"))
            answer = await server.answer(invocation.request_id)
    assert answer.payload == b"abc"
    assert answer.headers["trailer"].split(", ") == [
        "Lambda-Runtime-Function-Error-Type",
        "Lambda-Runtime-Function-Error-Body",
    ]
    assert answer.trailers["lambda-runtime-function-error-type"] == "Provider.StreamBroken"
    assert answer.error["errorMessage"] == "the answer ended early"


async def test_what_lambda_refuses_is_an_error() -> None:
    """An answer that is too large, for instance."""
    async with runtime_api() as server:
        server.status = 413
        server.invoke({})
        async with RuntimeApi(server.environment["AWS_LAMBDA_RUNTIME_API"]) as api:
            invocation = await api.next()
            with pytest.raises(RuntimeApiError, match="413"):
                await api.respond(invocation, b"{}")
            with pytest.raises(RuntimeApiError, match="413"):
                await api.stream(invocation, write_prelude(200, []), _chunks(b"a"))


async def _chunks(*chunks: bytes) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


@pytest.mark.parametrize(
    ("kind", "waits"), [("on-demand", False), ("provisioned-concurrency", True)]
)
async def test_a_slow_start_goes_on_within_the_first_invocation(kind: str, *, waits: bool) -> None:
    """On demand Lambda would begin anew after 10 s; with provisioned concurrency it waits."""
    environment = LambdaEnvironment(runtime_api="", initialization_type=kind)
    nine_seconds_ago = Lifecycle(started_s=time.monotonic() - 9)
    process = InProcess(Settings(), nine_seconds_ago)
    process.stopping.set()
    if waits:
        with pytest.raises(Unavailable, match="starting"):
            await until_started(environment, process)
    else:
        process.stopping.clear()
        await until_started(environment, process)


async def test_an_invocation_that_fails_as_nobody_foresaw_ends_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Lambda is told, and the next one is asked for."""

    def fail(event: object) -> None:
        raise RuntimeError(event)

    monkeypatch.setattr(worker, "read_event", fail)
    process = InProcess(Settings(), Lifecycle())
    async with (
        runtime_api() as server,
        RuntimeApi(server.environment["AWS_LAMBDA_RUNTIME_API"]) as api,
        aiohttp.ClientSession() as session,
    ):
        invocations = Invocations(api, session, process, LambdaSettings())
        running = asyncio.ensure_future(invocations.run())
        answers = [await server.call({}) for _ in range(2)]
        process.stopping.set()
        await running
    kind = "lambda-runtime-function-error-type"
    assert [answer.headers[kind] for answer in answers] == ["Provider.Failed"] * 2
