"""H: random damage to requests; whatever it does, it is the client's fault."""

import asyncio
import random

import pytest

from tests.serving import Serving, saying, serving
from tests.threats.aftermath import canary, no_complaints
from tests.threats.raw_http import BODY, chunked, connected, get, post

NUM_REQUESTS = 250
PIECES = [b"\r\n", b"\n", b"\r", b"\0", b":", b" ", b"\t", b"%", b"/", b"\xff", b"0", b"chunked"]
PIECES += [b"\r\n\r\n", b"Content-Length: 1\r\n", b"Transfer-Encoding: chunked\r\n", b"HTTP/1.0"]
SEEDS = [post(), get("/v1/models"), post("Transfer-Encoding: chunked", body=chunked(BODY, BODY))]


def damaged(request: bytes, rng: random.Random) -> bytes:
    """A request with up to four things cut out, put in or swapped."""
    data = bytearray(request)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(data))
        match rng.randrange(4):
            case 0:
                del data[at : at + rng.randint(1, 10)]
            case 1:
                data[at:at] = rng.choice(PIECES)
            case 2:
                data[at] = rng.randrange(256)
            case _:
                data[at:at] = data[rng.randrange(len(data)) :][: rng.randint(1, 40)]
    return bytes(data)


async def outcome(served: Serving, request: bytes) -> int:
    """The first status, 0 if the connection was closed without one."""
    async with connected(served.port) as client:
        await client.send(request)
        try:
            status = (await client.reply()).status
        except (asyncio.IncompleteReadError, ConnectionError):
            return 0
        return status


@pytest.mark.parametrize("seed", range(3))
async def test_h_damaged_requests_never_end_in_a_server_error(seed: int) -> None:
    """Every one is answered below 500 or times out as a client's fault; no slot is lost."""
    rng = random.Random(seed)  # noqa: S311 - the same damage every time
    requests = [damaged(SEEDS[seed], rng) for _ in range(NUM_REQUESTS)]
    limits = {"headers_timeout_s": 0.3, "body_timeout_s": 0.3}
    async with serving(saying("Hello!"), limits=limits) as served:
        with no_complaints():
            statuses = await asyncio.gather(*(outcome(served, request) for request in requests))
            await served.settled()
        assert set(statuses) <= {200, 400, 401, 404, 405, 408, 411, 413, 415, 417, 429}
        assert 400 in statuses
        assert len(served.usage.lines) <= NUM_REQUESTS
        await canary(served)
