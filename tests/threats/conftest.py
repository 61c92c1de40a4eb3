"""The server under attack, one per file: it must survive every test of it in turn."""

from collections.abc import AsyncIterator

import pytest_asyncio

from tests.serving import Serving, saying, serving


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def served() -> AsyncIterator[Serving]:
    """A server with the default limits that says "Hello!" to everything."""
    async with serving(saying("Hello!")) as running:
        yield running
