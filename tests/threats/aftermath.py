"""What must be true after every attack: nothing billed, nothing leaked, the next request works."""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from structlog.testing import capture_logs

from tests.serving import Serving

CANARY = {"model": "test-model", "prompt": "hi"}


@asynccontextmanager
async def unharmed(served: Serving, *, num_events: int = 0) -> AsyncIterator[None]:
    """Attack inside; then the server must be as it was.

    Args:
        served: A server that says "Hello!".
        num_events: Usage events the attack itself may cause, exactly.
    """
    before = len(served.usage.lines)
    with no_complaints():
        yield
        await served.settled()
        assert len(served.usage.lines) - before == num_events
        await canary(served)


async def canary(served: Serving) -> None:
    """An ordinary request succeeds."""
    reply = await served.post("/v1/completions", CANARY)
    assert reply.status == 200
    assert (await reply.json())["choices"][0]["text"] == "Hello!"


@contextmanager
def no_complaints() -> Iterator[None]:
    """Fail if anything is logged as an error, or reaches the loop's exception handler."""
    complaints: list[Any] = []
    loop = asyncio.get_running_loop()
    handler = _Collector(complaints)
    logging.getLogger().addHandler(handler)
    loop.set_exception_handler(lambda _, context: complaints.append(context))
    try:
        with capture_logs() as lines:
            yield
    finally:
        loop.set_exception_handler(None)
        logging.getLogger().removeHandler(handler)
    complaints += [line for line in lines if line["log_level"] in {"error", "critical"}]
    assert complaints == []


class _Collector(logging.Handler):
    """Keeps what libraries log as an error."""

    def __init__(self, records: list[Any]) -> None:
        super().__init__(logging.ERROR)
        self._records = records

    def emit(self, record: logging.LogRecord) -> None:
        """Keep one."""
        self._records.append(record.getMessage())
