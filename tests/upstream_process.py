"""Our own server as somebody's upstream: `python -m tests.upstream_process`.

It answers every prompt with `REPLY`, says its address and then, as JSON lines, how each request
ended, and stops when its standard input closes.
"""

import asyncio
import json
import sys

import structlog

from provider_core import UsageRecord, hookimpl
from tests.serving import saying, serving

REPLY = "The quick brown fox jumps over the lazy dog. " * 8
STEP_S = 0.004


class Reporter:
    """Says how requests end."""

    @hookimpl
    def request_finished(self, record: UsageRecord) -> None:
        """One line."""
        print(json.dumps([record.status, record.usage.generated_tokens]), flush=True)  # noqa: T201


async def main() -> None:
    """Serve."""
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    async with serving(saying(REPLY, step_time_s=STEP_S), plugins=(Reporter(),)) as served:
        print(served.url, flush=True)  # noqa: T201 - for the test that started it
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main())
