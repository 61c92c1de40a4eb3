"""One request over a real socket: its times, and every way in which it can fail."""

import socket

import pytest

from provider_core.loadtest.exchange import Client, Receiver
from provider_core.loadtest.replies import DONE, Reply
from provider_core.loadtest.target import make_target
from provider_core.loadtest.workload import Request
from tests.unit.loadtest.scripted_stream import (
    END,
    HEAD,
    ManualClock,
    chunk,
    scripted_stream,
    text,
    usage,
)

REQUEST = Request(prompt=[1], max_tokens=4)


async def answer_to(*parts: tuple[float, bytes], timeout_s: float = 30.0) -> Reply:
    """What a client makes of a server's parts."""
    clock = ManualClock()
    async with scripted_stream(parts, clock) as (_, port):
        target = make_target(f"http://127.0.0.1:{port}", label="A")
        client = Client(target, timeout_s=timeout_s, clock=clock)
        return await client.stream(target.post(REQUEST))


def receive(*reads: tuple[float, bytes]) -> Reply:
    """What a receiver makes of reads at known times."""
    clock, reply = ManualClock(), Reply(sent_s=100.0)
    receiver = Receiver(clock, reply)
    for now_s, data in reads:
        clock.now_s = now_s
        receiver.data_received(data)
    return reply


async def test_each_read_has_the_time_of_its_arrival() -> None:
    """Of the head, of one event, of two at once, of a count, and of the end."""
    reply = receive(
        (101.0, HEAD),
        (102.0, chunk(text())),
        (104.0, chunk(text(), text())),
        (105.0, chunk(usage(4))),
        (106.0, chunk(DONE) + END),
    )

    assert reply.arrivals_s == [102.0, 104.0, 104.0]
    assert (reply.ended_s, reply.num_tokens, reply.error) == (106.0, 4, None)


async def test_an_answer_over_a_socket() -> None:
    """The request arrives whole, and so does the answer."""
    reply = await answer_to(
        (101.0, HEAD + chunk(text())), (103.0, chunk(text(), usage(2), DONE) + END)
    )

    assert (reply.sent_s, len(reply.arrivals_s), reply.num_tokens) == (100.0, 2, 2)
    assert reply.error is None
    assert 100.0 <= reply.arrivals_s[0] <= reply.arrivals_s[1] <= reply.ended_s == 103.0


@pytest.mark.parametrize(
    ("parts", "kind", "detail"),
    [
        ([HEAD + chunk(text()) + END], "incomplete", "ended before the text did"),
        ([HEAD + chunk(text())], "incomplete", "ended before the text did"),
        ([HEAD + chunk(b'{"error":{"message":"no"}}') + END], "error_event", "no"),
        ([b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"], "not_a_stream", "answered"),
        ([b"nonsense\r\n\r\n"], "bad_response", "is no HTTP status line"),
        ([], "connection_lost", "closed before an answer"),
        (
            [b'HTTP/1.1 429 No\r\nContent-Length: 30\r\n\r\n{"error":{"message":"slow it"}}'],
            "http_429",
            "slow it",
        ),
        ([b"HTTP/1.1 502 No\r\n\r\n<html>bad"], "http_502", "<html>bad"),
    ],
)
async def test_every_failure_has_a_kind_and_words(
    parts: list[bytes], kind: str, detail: str
) -> None:
    """None is raised: a load goes on."""
    reply = await answer_to(*[(101.0, part) for part in parts])

    assert reply.error == kind
    assert detail in reply.detail


async def test_a_silent_server_times_out() -> None:
    """It is given up."""
    async with scripted_stream([(101.0, HEAD)]) as (stream, port):
        stream.gate.clear()
        target = make_target(f"http://127.0.0.1:{port}", label="A")
        reply = await Client(target, timeout_s=0.01).stream(target.post(REQUEST))
        stream.gate.set()

    assert reply.error == "timeout"
    assert reply.ended_s > reply.sent_s


async def test_nobody_there() -> None:
    """Is a refused connection."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        target = make_target(f"http://127.0.0.1:{unused.getsockname()[1]}", label="A")
        reply = await Client(target, timeout_s=30).stream(target.post(REQUEST))

    assert reply.error == "connection_refused"


async def test_a_document_is_read_as_json() -> None:
    """Such as the list of models."""
    body = b'{"data":[{"id":"m"}]}'
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
    async with scripted_stream([(101.0, answer)]) as (stream, port):
        target = make_target(f"http://127.0.0.1:{port}", label="A", key="sk-1")
        reply, document = await Client(target, timeout_s=30).get("/v1/models")

    assert (reply.error, document) == (None, {"data": [{"id": "m"}]})
    assert stream.requests[0].startswith(b"GET /v1/models HTTP/1.1\r\n")
