"""Taking invocations: as many at a time as Lambda says, one where it does not.

When nothing runs Lambda freezes the process, and may end it without a word. So every bill is in the
log before the last one that runs asks for the next.
"""

import asyncio
import json
import time
from contextlib import suppress
from functools import partial

import aiohttp
import structlog

from provider_core import Unavailable
from provider_core.server.handler_settings import read_handler_settings
from provider_core.server.in_process import InProcess, Worker
from provider_lambda.events import (
    EventCall,
    read_event,
    write_answer,
    write_prelude,
)
from provider_lambda.runtime_api import Invocation, RuntimeApi, RuntimeApiError
from provider_lambda.settings import (
    LambdaEnvironment,
    LambdaSettings,
    read_environment,
)

log = structlog.get_logger()

_MARGIN_S = 1.0  # before Lambda ends an invocation, for its answer to leave
_ON_DEMAND_START_S = 9.0  # of the 10 that a start may take before Lambda begins it anew
_LOG_S = 2.0  # a log that takes longer is noted
_BROKEN = (aiohttp.ClientError, OSError, RuntimeApiError)  # a connection, or an answer's way
_UNKNOWN = "Provider.UnknownEvent"


def make_worker() -> Worker:
    """What takes invocations.

    Raises:
        ConfigurationError: This is no function of Lambda, or a setting is wrong.
    """
    return partial(_take_invocations, read_handler_settings(LambdaSettings), read_environment())


async def _take_invocations(
    settings: LambdaSettings, environment: LambdaEnvironment, process: InProcess
) -> None:
    """Answer invocations until the server stops."""
    async with RuntimeApi(environment.runtime_api) as api:
        try:
            await until_started(environment, process)
        except Unavailable as error:
            await api.fail_start("Provider.StartFailed", error.message)
            return
        async with process.open_session() as session, asyncio.TaskGroup() as group:
            invocations = Invocations(api, session, process, settings)
            for _ in range(environment.max_concurrency):
                group.create_task(invocations.run())


async def until_started(environment: LambdaEnvironment, process: InProcess) -> None:
    """Wait for models, but not so long that Lambda starts the function a second time.

    Where an invocation caused the start it then waits for the rest of it, within its own deadline.

    Raises:
        Unavailable: The server cannot start.
    """
    left_s: float | None = None
    if environment.initialization_type == "on-demand":
        left_s = _ON_DEMAND_START_S - (time.monotonic() - process.lifecycle.started_s)
    try:
        async with asyncio.timeout(left_s):
            await process.until_ready()
    except TimeoutError:
        log.info("lambda.slow_start", reason=process.lifecycle.reason)


class Invocations:
    """Answers invocations one after the other; several may run at a time.

    Args:
        api: Where they come from.
        session: Of the application.
        process: Of the server.
        settings: Of this handler.
    """

    def __init__(
        self,
        api: RuntimeApi,
        session: aiohttp.ClientSession,
        process: InProcess,
        settings: LambdaSettings,
    ) -> None:
        self._api = api
        self._session = session
        self._process = process
        self._is_buffered = settings.invoke_mode == "buffered"
        self._num_running = 0

    async def run(self) -> None:
        """Take and answer until the server stops."""
        while (invocation := await self._next()) is not None:
            self._num_running += 1
            try:
                await self._answer_or_fail(invocation)
            finally:
                self._num_running -= 1
            if self._num_running == 0 and not await self._process.until_logged(_LOG_S):
                log.warning("lambda.log_is_slow")

    async def _next(self) -> Invocation | None:
        taking = asyncio.ensure_future(self._api.next())
        stopping = asyncio.ensure_future(self._process.stopping.wait())
        try:
            await asyncio.wait({taking, stopping}, return_when=asyncio.FIRST_COMPLETED)
            return taking.result() if taking.done() else None
        finally:
            taking.cancel()
            stopping.cancel()

    async def _answer_or_fail(self, invocation: Invocation) -> None:
        """Answer, whatever the event holds: others run beside it, and more will come."""
        try:
            await self._answer(invocation)
        except _BROKEN as error:
            log.warning("lambda.unanswered", request_id=invocation.request_id, error=str(error))
        except Exception:
            log.exception("lambda.failed", request_id=invocation.request_id)
            with suppress(*_BROKEN):
                await self._api.fail(invocation, "Provider.Failed", "the handler failed")

    async def _answer(self, invocation: Invocation) -> None:
        try:
            call = read_event(json.loads(invocation.event))
        except (ValueError, RecursionError) as error:
            await self._api.fail(invocation, _UNKNOWN, str(error))
            return
        left_s = invocation.deadline_s - time.time() - _MARGIN_S
        try:
            async with asyncio.timeout(max(left_s, 0)):
                await self._process.until_ready()
        except (TimeoutError, Unavailable):
            reason = self._process.lifecycle.reason
            await self._api.fail(invocation, "Provider.NotReady", f"not ready: {reason}")
            return
        try:
            answer = await self._session.request(
                call.method,
                call.path,
                data=call.body,
                headers={**call.headers, **_added_headers(invocation, call)},
            )
        except aiohttp.ClientConnectionError:
            await self._api.fail(invocation, "Provider.Stopped", "the server ended")
            return
        except (ValueError, TypeError) as error:  # a header or a method that HTTP has no form for
            await self._api.fail(invocation, _UNKNOWN, str(error))
            return
        async with answer:
            headers = answer.headers.items()
            if self._is_buffered:
                body = await answer.read()
                await self._api.respond(invocation, write_answer(answer.status, headers, body))
            else:
                prelude = write_prelude(answer.status, headers)
                await self._api.stream(invocation, prelude, answer.content.iter_any())


def _added_headers(invocation: Invocation, call: EventCall) -> dict[str, str]:
    """The deadline, so that generating ends before Lambda does, and the trace."""
    left_ms = round(1000 * (invocation.deadline_s - time.time() - _MARGIN_S))
    own = call.headers.get("x-request-deadline-ms", "")
    if own.isdecimal():
        left_ms = min(left_ms, int(own))
    added = {"x-request-deadline-ms": str(max(left_ms, 1))}
    return added | ({"x-amzn-trace-id": invocation.trace_id} if invocation.trace_id else {})
