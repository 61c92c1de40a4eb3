"""Sending a whole answer: its bill is on disk before, and taken back if it cannot leave."""

from collections.abc import Awaitable, Callable

from aiohttp import web

from provider_core.server.call import Call
from provider_core.server.open_run import OpenRun


async def send_whole(
    request: web.Request, call: Call, run: OpenRun, make_body: Callable[[], Awaitable[bytes]]
) -> web.Response:
    """Answer at once, when the usage record is on disk; settle the run however it ends.

    Args:
        request: The request to answer.
        call: The HTTP request.
        run: What answers it.
        make_body: Waits for the end of the run, settles it if that was well, and writes the body.

    Raises:
        Exception: What `make_body` raised; nothing was sent.
    """
    try:
        body = await make_body()
        record = run.settle()
        await run.until_durable()
        response = web.Response(body=body, content_type="application/json")
        await response.prepare(request)
        await response.write_eof()
        run.conclude(is_sent=True)
        if call.claim is not None:
            call.claim.keep(record.generation_id, body)
    except BaseException as exc:
        run.settle(exc)
        raise
    finally:
        run.conclude(is_sent=False)
    return response
