"""The writer thread: nothing waits for the reader of stdout, and no usage line is lost."""

import json
import os
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from provider_core.observability import LineWriter

Pipe = tuple[int, int]
STALL = 200  # lines of 1 KiB, three times what a pipe takes


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    """Read and write end; tests may close either themselves."""
    ends = os.pipe()
    yield ends
    for end in ends:
        try:
            os.close(end)
        except OSError:
            continue


def read_all(fd: int) -> tuple[threading.Thread, list[bytes]]:
    """Read a pipe to its end in a thread."""
    chunks: list[bytes] = []

    def run() -> None:
        while chunk := os.read(fd, 65536):
            chunks.append(chunk)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, chunks


def until(is_true: Callable[[], bool]) -> None:
    """Wait for another thread's doing."""
    pause = threading.Event()
    while not is_true():
        pause.wait(0.002)


def make_line(kind: str, number: int) -> bytes:
    """A line of 1 KiB."""
    return json.dumps({"event": kind, "n": number, "pad": "x" * 1000}).encode() + b"\n"


def test_lines_are_written_in_order(tmp_path: Path) -> None:
    """Logs and usage lines keep the order in which they were given."""
    path = tmp_path / "log"
    with path.open("wb") as file:
        writer = LineWriter(file.fileno())
    lines = [make_line("log" if number % 3 else "usage", number) for number in range(100)]
    for number, line in enumerate(lines):
        (writer.write if number % 3 else writer.emit)(line)
    assert writer.close()
    assert path.read_bytes() == b"".join(lines)
    assert writer.num_waiting == writer.num_dropped == 0


def test_a_stalled_reader_costs_logs_and_never_usage_lines(pipe: Pipe) -> None:
    """Callers go on at once; logs beyond the bound are counted; usage lines come out later."""
    reader, end = pipe
    writer = LineWriter(end, max_waiting=50)
    os.close(end)
    for number in range(STALL):
        writer.emit(make_line("usage", number))
    until(lambda: writer.num_waiting < STALL)
    for number in range(STALL):
        writer.write(make_line("log", number))
    assert writer.num_dropped > 0
    thread, chunks = read_all(reader)
    assert writer.close()
    thread.join()
    events = [json.loads(line) for line in b"".join(chunks).splitlines()]
    assert [e["n"] for e in events if e["event"] == "usage"] == list(range(STALL))
    num_logs = sum(e["event"] == "log" for e in events)
    assert num_logs + writer.num_dropped == STALL
    reports = [e for e in events if e["event"] == "log.dropped"]
    assert sum(report["count"] for report in reports) == writer.num_dropped


def test_a_vanished_reader_is_reported(pipe: Pipe) -> None:
    """Nothing raises; the error is visible; closing says that a bill was not written."""
    reader, end = pipe
    writer = LineWriter(end, retry_s=0.01)
    os.close(reader)
    writer.emit(make_line("usage", 1))
    until(lambda: writer.error is not None)
    assert writer.error == os.strerror(32)  # EPIPE
    assert not writer.close()


def test_lost_logs_do_not_make_closing_fail(pipe: Pipe) -> None:
    """Only usage lines matter enough."""
    reader, end = pipe
    writer = LineWriter(end, retry_s=0.01)
    os.close(reader)
    writer.write(make_line("log", 1))
    assert writer.close()
    assert writer.num_dropped == 1


def test_usage_lines_survive_a_failing_disk(tmp_path: Path) -> None:
    """When writing works again they are written, each whole on its own line."""
    path = tmp_path / "log"
    with Path("/dev/full").open("wb") as full, path.open("wb") as file:
        writer = LineWriter(full.fileno(), retry_s=0.01)
        writer.emit(make_line("usage", 1))
        until(lambda: writer.error is not None)
        os.dup2(file.fileno(), writer._fd)
        until(lambda: writer.error is None)
    writer.emit(make_line("usage", 2))
    assert writer.close()
    lines = [line for line in path.read_bytes().splitlines() if line]
    assert [json.loads(line)["n"] for line in lines] == [1, 2]


def test_a_non_blocking_stdout_loses_nothing(pipe: Pipe) -> None:
    """Another program may have made the shared descriptor non-blocking."""
    reader, end = pipe
    os.set_blocking(end, False)
    writer = LineWriter(end)
    os.close(end)
    for number in range(STALL):
        writer.emit(make_line("usage", number))
    thread, chunks = read_all(reader)
    assert writer.close()
    thread.join()
    assert [json.loads(line)["n"] for line in b"".join(chunks).splitlines()] == list(range(STALL))


def test_a_write_is_whole_lines_of_at_most_4096_bytes() -> None:
    """Two processes on one pipe never tear each other's lines."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        theirs.settimeout(10)
        writer = LineWriter(ours.fileno())
        for number in range(40):
            writer.emit(make_line("usage", number))
        messages: list[bytes] = []
        while sum(message.count(b"\n") for message in messages) < 40:
            messages.append(theirs.recv(2**17))
        writer.close()
    assert max(map(len, messages)) <= 4096
    assert all(message.endswith(b"\n") for message in messages)


def test_lines_are_rendered_in_the_thread(tmp_path: Path) -> None:
    """Making them pretty costs the caller nothing."""
    path = tmp_path / "log"
    threads: list[str] = []

    def render(line: bytes) -> bytes:
        threads.append(threading.current_thread().name)
        return line.upper()

    with path.open("wb") as file:
        writer = LineWriter(file.fileno(), render=render)
    writer.write(b"a\n")
    writer.close()
    writer.close()
    assert path.read_bytes() == b"A\n"
    assert threads == ["line-writer"]


def test_a_line_written_through_is_out_when_the_call_returns(tmp_path: Path) -> None:
    """In the caller's thread, rendered as the others are."""
    path = tmp_path / "log"
    with path.open("wb") as file:
        writer = LineWriter(file.fileno(), render=bytes.upper)
    assert writer.write_through(b"usage\n")
    assert path.read_bytes() == b"USAGE\n"
    assert writer.close()


def test_what_follows_a_line_that_failed_is_whole(pipe: Pipe) -> None:
    """The caller hears of the failure and keeps the line; the next one begins on a fresh line."""
    reader, end = pipe
    writer = LineWriter(end)
    os.close(reader)
    assert not writer.write_through(b"usage\n")
    again, fresh_end = os.pipe()
    os.dup2(fresh_end, writer._fd)
    os.close(fresh_end)
    assert writer.write_through(b"usage\n")
    assert os.read(again, 100) == b"\nusage\n"
    os.close(again)
    assert writer.close()
