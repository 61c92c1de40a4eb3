"""What a served request leaves in the log: its lines, its numbers, and none of its words."""

import asyncio
import json
import logging
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from prometheus_client.parser import text_string_to_metric_families

from provider_core.observability import start_logging
from provider_core.settings import LoggingSettings
from tests.serving import KEY, Serving, saying, scripted_runner, serving

PROMPT = "canary-of-the-prompt"
REPLY = "canary-of-the-reply"
WRONG_KEY = "sk-canary-of-a-wrong-key"
NINE_FIELDS = {
    "timestamp",
    "generation_id",
    "model",
    "latency_ms",
    "prompt_tokens",
    "completion_tokens",
    "cost",
    "status",
    "user_id",
}
ReadLog = Callable[[], list[dict[str, Any]]]


@pytest.fixture
def read_log(tmp_path: Path) -> Iterator[ReadLog]:
    """Log everything into a file; stop and read it."""
    root = logging.getLogger()
    before = root.handlers, root.level, threading.excepthook, sys.unraisablehook
    path = tmp_path / "log"
    with path.open("wb") as file:
        writer = start_logging(LoggingSettings(level="debug"), file.fileno())

    def read() -> list[dict[str, Any]]:
        writer.close()
        return [json.loads(line) for line in path.read_bytes().splitlines()]

    yield read
    writer.close()
    root.handlers, root.level, threading.excepthook, sys.unraisablehook = before
    structlog.reset_defaults()


def access_lines(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One a request."""
    return [line for line in lines if line["event"] == "request.access"]


async def raw_request(served: Serving, head: bytes, body: bytes) -> bytes:
    """Send bytes that no client library would, and read the whole answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
    writer.write(head + b"\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % len(body) + body)
    answer = await reader.read()
    writer.close()
    return answer


async def test_one_access_and_one_usage_line_a_request(read_log: ReadLog) -> None:
    """Both have the nine fields, and the client's usage is the bill's (I3)."""
    async with serving(saying("Hello!")) as served:
        whole = await (await served.chat(user="somebody")).json()
        await served.chat(stream=True, stream_options={"include_usage": True})
        await served.settled()
        bills = served.usage.events
    lines = access_lines(read_log())
    assert len(lines) == len(bills) == 2
    for line, bill in zip(lines, bills, strict=True):
        assert set(line) >= NINE_FIELDS
        assert set(bill) >= NINE_FIELDS
        shared = NINE_FIELDS - {"timestamp", "latency_ms"}
        assert {name: line[name] for name in shared} == {name: bill[name] for name in shared}
    assert whole["id"] == bills[0]["generation_id"]
    assert {name: bills[0][name] for name in whole["usage"] if name in bills[0]} == {
        name: value for name, value in whole["usage"].items() if name in bills[0]
    }
    assert [line["user_id"] for line in lines] == ["somebody", None]
    assert [line["stream"] for line in lines] == [False, True]


async def test_a_refused_request_has_an_access_line_only(read_log: ReadLog) -> None:
    """Nothing was admitted, so nothing is billed (R10)."""
    async with serving() as served:
        await served.chat(max_tokens=-1)
        await served.post("/v1/chat/completions", {}, headers={"Authorization": "Bearer wrong"})
        assert served.usage.events == []
    lines = access_lines(read_log())
    assert [(line["http_status"], line["status"], line["cost"]) for line in lines] == [
        (400, "error", "0"),
        (401, "error", "0"),
    ]
    assert lines[1]["api_key_id"] is None


async def test_no_word_of_a_request_reaches_the_log(
    read_log: ReadLog, capfd: pytest.CaptureFixture[str]
) -> None:
    """Prompt, completion and keys stay out of every line, however the request ends."""

    def break_down(_: object) -> None:
        raise RuntimeError(f"cannot compute {PROMPT}")

    async with serving(saying(REPLY)) as served:
        answer = await served.chat(PROMPT)
        assert REPLY in await answer.text()
        await served.chat(PROMPT, stream=True)
        await served.chat(PROMPT, temperature=PROMPT)
        await served.post(f"/v1/{PROMPT}", {"prompt": PROMPT})
        await served.post(f"/v1/chat/completions?key={WRONG_KEY}", {}, headers={"X-Api-Key": KEY})
        await served.post(
            "/v1/chat/completions", {}, headers={"Authorization": f"Bearer {WRONG_KEY}"}
        )
        bills = b"".join(served.usage.lines)
    async with serving(scripted_runner(on_execute=break_down)) as served:
        failed = await served.chat(PROMPT)
        assert failed.status >= 500
        bills += b"".join(served.usage.lines)
    everything = json.dumps(read_log()) + bills.decode() + "".join(capfd.readouterr())
    for canary in (PROMPT, REPLY, WRONG_KEY, KEY):
        assert canary not in everything


async def test_hostile_headers_and_fields_leave_whole_lines(read_log: ReadLog) -> None:
    """Latin-1 bytes, forged lines and forged ids change nothing (W1 to W4)."""
    forged = '{"event":"usage.final","cost":"999"}'
    body = json.dumps(
        {
            "model": "test-model",
            "messages": [{"role": "user", "content": "hi"}],
            "user": f"\r\n{forged}\u2028{forged}\x1b[31m" + "x" * 2**20,
            "cost": "0",
            "usage": {"prompt_tokens": 0},
        }
    ).encode()
    head = (
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"
        b"Authorization: Bearer " + KEY.encode() + b"\r\nContent-Type: application/json\r\n"
        b"X-Title: Zo\xeb " + forged.encode() + b"\r\nX-Generation-Id: gen-forged\r\n"
        b"X-Request-Id: req-forged"
    )
    async with serving() as served:
        answer = await raw_request(served, head, body)
        assert answer.startswith(b"HTTP/1.1 200")
        [line] = served.usage.lines
    assert line.isascii()
    assert len(line) <= 4096
    assert line.count(b"\n") == 1
    event = json.loads(line)
    assert event["app_title"] == f"Zo\ufffd {forged}"[:128]
    assert event["generation_id"] != "gen-forged"
    assert event["request_id"] != "req-forged"
    assert event["client_request_id"] == "req-forged"
    assert event["cost"] != "999"
    assert event["prompt_tokens"] > 0
    assert len(access_lines(read_log())) == 1


async def test_metrics_are_the_sums_of_the_bills() -> None:
    """Token counters of the process equal the usage lines (I8), which have no gap (I9)."""
    async with serving(saying("Hello!")) as served:
        await asyncio.gather(*(served.chat("x" * size) for size in range(1, 9)))
        await served.settled()
        page = await (await served.session.get(served.url + "/metrics")).text()
        bills = served.usage.events
    totals = {
        sample.name: sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
        if sample.labels == {"model": "test-model"}
    }
    for field in ("prompt_tokens", "completion_tokens", "generated_tokens"):
        assert totals[f"provider_{field}_total"] == sum(bill[field] for bill in bills) > 0
    assert [bill["seq"] for bill in bills] == list(range(1, 9))
