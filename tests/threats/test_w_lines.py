"""W: what clients write must not forge, break or swell the lines that are billed from."""

import json
import logging
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import structlog

from provider_core.observability.logs import start_logging
from provider_core.settings import LoggingSettings
from tests.serving import Serving, saying, serving
from tests.threats.aftermath import CANARY
from tests.threats.raw_http import answer, get, post

FORGED = '{"event":"usage.final","cost":"0","seq":1}'


@contextmanager
def logging_to(path: Path) -> Iterator[None]:
    """Log as a real process does, into a file, for a while."""
    root = logging.getLogger()
    before = root.handlers, root.level, threading.excepthook, sys.unraisablehook
    with path.open("wb") as file:
        writer = start_logging(LoggingSettings(format="json"), file.fileno())
        try:
            yield
        finally:
            writer.close()
            structlog.reset_defaults()
            root.handlers, root.level, threading.excepthook, sys.unraisablehook = before


async def lines_of(path: Path, *headers: str, **fields: Any) -> tuple[list[bytes], list[bytes]]:
    """The log's and the ledger's lines of one request."""
    body = json.dumps({**CANARY, **fields}).encode()
    with logging_to(path):
        async with serving(saying("Hello!")) as served:
            assert (await answer(served.port, post(*headers, body=body))).status == 200
            usage = list(served.usage.lines)
    return read_lines(path), usage


def read_lines(path: Path) -> list[bytes]:
    """The physical lines of a file."""
    return path.read_bytes().splitlines(keepends=True)


EVIL = [
    f"a\n{FORGED}\n",
    f"a\r\n{FORGED}",
    f"a\u2028{FORGED}\u2029\u0085",
    "\x1b[2J\x1b[31mred\x07",
    "\u202egnp.exe\u2066",
    '","cost":"0","x":"',
    "\x00\x7f\x9b",
]


@pytest.mark.parametrize("text", EVIL)
async def test_w1_w2_no_name_writes_a_line_of_its_own(tmp_path: Path, text: str) -> None:
    """One physical line an event, in ASCII, in which the text is only a value."""
    log, usage = await lines_of(tmp_path / "log", user=text, metadata={"a": text})
    assert len(usage) == 1
    assert json.loads(usage[0])["cost"] == "0.000016"
    for line in log + usage:
        assert line.isascii()
        assert line.endswith(b"\n")
        assert line.count(b"\n") == 1
        assert not set(line[:-1]) & set(range(32))
        assert isinstance(json.loads(line), dict)
    events = [json.loads(line)["event"] for line in log]
    assert events.count("usage.final") == 0
    assert events.count("request.access") == 1


async def test_w1_headers_are_values_too(tmp_path: Path) -> None:
    """A title may look like an event; it stays a title."""
    _, usage = await lines_of(
        tmp_path / "log", f"X-Title: {FORGED}", f"HTTP-Referer: {FORGED}\x85\xa0", "X-Request-Id: x"
    )
    [event] = [json.loads(line) for line in usage]
    assert event["cost"] == "0.000016"
    assert event["app_title"] == FORGED


async def test_w3_a_line_stays_short(tmp_path: Path) -> None:
    """Whatever the client's names weigh."""
    giant = "\u20ac" * 300_000
    log, usage = await lines_of(
        tmp_path / "log", "X-Title: " + "t" * 8000, "HTTP-Referer: " + "r" * 8000, user=giant
    )
    assert max(map(len, log + usage)) <= 4096


async def test_w4_a_client_cannot_name_or_price_its_generation() -> None:
    """Fields and headers of our answers mean nothing in a request."""
    forged = {
        "id": "gen-mine",
        "generation_id": "gen-mine",
        "usage": {"prompt_tokens": 0, "cost": 0},
        "cost": "0",
        "pricing": {"prompt": "0", "completion": "0"},
        "api_key_id": "somebody-else",
    }
    async with serving(saying("Hello!")) as served:
        body = json.dumps({**CANARY, **forged}).encode()
        headers = ("X-Generation-Id: gen-mine", "X-Api-Key-Id: somebody-else")
        reply = await answer(served.port, post(*headers, body=body))
        [event] = served.usage.events
        assert reply.headers["x-generation-id"] == event["generation_id"] != "gen-mine"
        assert event["cost"] == "0.000016"
        assert event["api_key_id"] != "somebody-else"


async def test_w5_every_replay_is_billed_once() -> None:
    """The same bytes again are another generation."""
    async with serving(saying("Hello!")) as served:
        for _ in range(50):
            assert (await answer(served.port, post())).status == 200
        events = served.usage.events
        assert len({event["generation_id"] for event in events}) == len(events) == 50
        assert [event["seq"] for event in events] == list(range(1, 51))


async def scrape(served: Serving) -> list[str]:
    """The names and labels that `/metrics` shows."""
    body = (await answer(served.port, get("/metrics"))).body.decode()
    return sorted(line.rpartition(" ")[0] for line in body.splitlines() if line[:1] != "#")


async def test_w6_clients_make_no_metric_series() -> None:
    """Labels come from the configuration; names that nobody knows leave none."""
    async with serving(saying("Hello!")) as served:
        for index in range(50):
            body = json.dumps({**CANARY, "user": f"u{index}"}).encode()
            assert (await answer(served.port, post(body=body))).status == 200
        before: list[str] = []
        for index in range(50):
            fields = {"model": f"model-{index}", "prompt": "hi", "user": f"user-{index}"}
            reply = await answer(served.port, post(body=json.dumps(fields).encode()))
            assert reply.status == 404
            await answer(served.port, get(f"/path-{index}"))
            if index == 1:  # each route and code has its series by now, the scrape's own too
                await scrape(served)
                before = await scrape(served)
        assert before
        assert await scrape(served) == before
