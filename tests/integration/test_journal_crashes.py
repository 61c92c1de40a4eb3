"""Bills and `kill -9`: a whole answer has exactly one bill, wherever the process died."""

import asyncio
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
from itertools import count
from pathlib import Path

import pytest

from provider_core.billing import journal
from tests.journal_boots import CHAT, Boots, Reader, is_whole, kill_at_random, session_of_key
from tests.journal_process import AFTER_DELIVERY, AWAIT, MID_FINAL, MID_TERMINATOR

POINTS = [
    "after open:3",
    f"{MID_FINAL}:3",
    "after write:4",
    "after sync:3",
    f"{MID_TERMINATOR}:2",
    "after stdout:3",
    "before E:3",
    f"{AFTER_DELIVERY}:1",
]
IN_DOUBT = {"after sync", MID_TERMINATOR}  # there is a bill, and its answer has not left
RECOVERY_POINTS = ["recovery 1", "recovery 2", "recovery 3", "recovery 4", "after stdout:1"]


@pytest.mark.timeout(180)
async def test_b1_kill_9_under_load(tmp_path: Path) -> None:
    """Killed ten times at random moments: every completed answer has exactly one bill."""
    boots = Boots(tmp_path)
    await kill_at_random(boots, 10, seed=1)
    events = boots.check()
    assert len(boots.completed) > 10
    assert "interrupted" in {event.get("status") for event in events}


def test_b2_every_labelled_point_is_tried() -> None:
    """A label that is added to the protocol is a place to die at."""
    sources = Path(journal.__file__).parent.glob("*.py")
    labels = {
        label for path in sources for label in re.findall(r'reach\("([^"]+)"\)', path.read_text())
    }
    tried = {point.partition(":")[0] for point in POINTS + RECOVERY_POINTS}
    assert tried - {MID_FINAL, MID_TERMINATOR} == labels


@pytest.mark.parametrize("point", POINTS)
async def test_b2_kill_9_at_each_point(tmp_path: Path, point: str) -> None:
    """Wherever in the protocol a process dies, its bills are whole after the next start."""
    boots = Boots(tmp_path)
    with boots.process(point) as process:
        port = await boots.port(process)
        assert port is not None
        await boots.load(process, port)
        assert process.returncode == -signal.SIGKILL
    await boots.settle()
    boots.check()
    if point.partition(":")[0] in IN_DOUBT:
        assert boots.check_refunds() >= {"R9"}
    elif point.startswith(AFTER_DELIVERY):
        assert boots.check_refunds() >= {"R5"}


@pytest.mark.parametrize("point", RECOVERY_POINTS)
async def test_b2_kill_9_in_recovery(tmp_path: Path, point: str) -> None:
    """A start that dies while it settles another boot's bills leaves them to the next one."""
    boots = Boots(tmp_path)
    with boots.process("before E:3") as process:
        port = await boots.port(process)
        assert port is not None
        await boots.load(process, port)
    with boots.process(point) as process:
        assert await asyncio.to_thread(process.wait, 20) == -signal.SIGKILL
    await boots.settle()
    boots.check()


@pytest.mark.timeout(180)
async def test_b13_kill_9_at_each_await(tmp_path: Path) -> None:
    """Wherever the handler of a request waits when the process dies, bills are whole afterwards."""
    boots = Boots(tmp_path)
    for number in count(1):
        with boots.process(f"{AWAIT}{number}:9") as process:
            port = await boots.port(process)
            assert port is not None
            enough = len(boots.completed) + 60
            await boots.load(process, port, lambda: len(boots.completed) >= enough)  # noqa: B023
            if process.poll() is None:  # no request waits so often
                break
    await boots.settle()
    boots.check()
    assert number > 2


async def test_b14_two_processes_share_a_folder_and_one_dies(tmp_path: Path) -> None:
    """A third start settles the bills of the dead one, once, and leaves the living one's alone."""
    boots = Boots(tmp_path)

    def num_recoveries() -> int:
        return boots.log.read_bytes().count(b'"journal.recovered"')

    with boots.process() as lives:
        lives_at = await boots.port(lives)
        with boots.process() as dies:
            dies_at = await boots.port(dies)
            assert lives_at is not None
            assert dies_at is not None
            loads = [
                asyncio.create_task(boots.load(lives, lives_at)),
                asyncio.create_task(boots.load(dies, dies_at)),
            ]
            while len(boots.completed) < 40:  # noqa: ASYNC110 - what the clients got
                await asyncio.sleep(0.005)
        await boots.settle()
        assert num_recoveries() == 1
        lives.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(lives.wait, 20) == 0
        await asyncio.gather(*loads)
    await boots.settle()
    assert num_recoveries() == 1
    boots.check()


@pytest.mark.parametrize("reader", ["stalls", "dies", "is /dev/full"])
async def test_b7_a_log_that_nobody_reads(tmp_path: Path, reader: str) -> None:
    """Requests go on being answered, and a later start writes what was not written.

    The line that was on its way as the process was killed may come twice, to the letter.
    """
    boots = Boots(tmp_path)
    read_end, write_end = os.pipe()
    if reader == "is /dev/full":
        os.close(write_end)
        write_end = os.open("/dev/full", os.O_WRONLY)
    with boots.process(stdout=write_end) as process:
        os.close(write_end)
        if reader == "dies":
            os.close(read_end)
        port = await boots.port(process)
        assert port is not None
        loading = asyncio.create_task(boots.load(process, port))
        while len(boots.completed) < 150:  # noqa: ASYNC110 - a pipe takes the lines of 30
            await asyncio.sleep(0.005)
        process.kill()
        await loading
    if reader != "dies":
        with boots.log.open("ab") as log, os.fdopen(read_end, "rb") as pipe:
            log.write(pipe.read())  # the reader wakes up and finds what the pipe had taken
    await boots.settle()
    boots.check()
    events = [event for event in boots.events() if event["event"] == "usage.final"]
    distinct = {event["event_id"]: event for event in events}
    assert all(event == distinct[event["event_id"]] for event in events)
    assert len(events) <= len(distinct) + 1


@pytest.mark.parametrize("grace_s", [3.2, 10, 30])
async def test_b3_sigterm_under_load(tmp_path: Path, grace_s: float) -> None:
    """A drain settles all, says its totals at last, and leaves nothing to recover.

    A stream that outlasts the grace is cut and costs nothing (R7); else it ends as ever.
    """
    boots = Boots(tmp_path)
    with boots.process(server={"grace_s": grace_s}) as process:
        port = await boots.port(process)
        assert port is not None
        loading = asyncio.create_task(boots.load(process, port))
        async with session_of_key() as session:
            long = {**CHAT, "stream": True, "ignore_eos": True, "max_tokens": 1000}
            url = f"http://127.0.0.1:{port}/v1/chat/completions"
            async with session.post(url, json=long) as streamed:
                while len(boots.completed) < 20:  # noqa: ASYNC110 - what the clients got
                    await asyncio.sleep(0.005)
                process.send_signal(signal.SIGTERM)
                text = await streamed.text()
        assert await asyncio.to_thread(process.wait, 20) == 0
        await loading
    events = boots.check()
    (cut,) = [e for e in events if e["generation_id"] == streamed.headers["X-Generation-Id"]]
    assert cut["billing_rule"] == ("R1" if is_whole(text) else "R7")
    assert (grace_s > 10) <= (cut["billing_rule"] == "R1")
    *_, last = boots.events()
    told = (last["event"], last["closing"], last["journal_unemitted"], last["open_generations"])
    assert told == ("usage.heartbeat", True, 0, 0)
    assert last["finals"] == last["last_seq"] == len(events)
    assert last["sum_completion_tokens"] == sum(event["completion_tokens"] for event in events)
    assert {event["delivery"] for event in events} <= {"sent", "failed"}
    before = boots.log.read_bytes()
    await boots.settle()
    assert b"journal.recovered" not in boots.log.read_bytes()[len(before) :]


async def test_b4_no_file_may_grow(tmp_path: Path) -> None:
    """The system's own refusal, amid a frame: 503 and no torn frame, until there is room again."""
    boots = Boots(tmp_path)
    with boots.process(stdout=subprocess.PIPE) as process:  # a file's size would be limited, too
        assert process.stdout is not None
        reader = Reader(process.stdout, boots.log)
        port = await boots.port(process)
        assert port is not None
        async with session_of_key() as session:

            async def until(status: int) -> None:
                while await boots.ask(session, port, stream=False) != status:
                    pass

            limit = 1500  # holds an admission, and a part of a bill
            resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
            await until(503)
            resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
            await until(200)
        process.terminate()
        assert await asyncio.to_thread(process.wait, 20) == 0
        reader.join()
        process.stdout.close()
    events = boots.check()
    assert {event["durable"] for event in events} == {True, False}
    assert b"journal.corrupt" not in boots.log.read_bytes()


@pytest.mark.strace
@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
async def test_b5_a_sync_that_the_kernel_fails(tmp_path: Path) -> None:
    """EIO, once: what the segment may not hold is in the next one before an answer ends."""
    boots = Boots(tmp_path)
    injected = ("-e", "trace=fdatasync", "-e", "inject=fdatasync:error=EIO:when=9")
    tracer = ("strace", "-D", "-f", "-qq", "--seccomp-bpf", "-o", "/dev/null", *injected)
    with boots.process(tracer=tracer) as process:
        port = await boots.port(process)
        assert port is not None
        await boots.load(process, port, lambda: len(boots.completed) >= 60)
        process.terminate()
        assert await asyncio.to_thread(process.wait, 20) == 0
    events = boots.check()
    assert {event["durable"] for event in events} == {True}
    assert boots.log.read_bytes().count(b'"journal.failed"') == 1
    assert len({path.name for path in (tmp_path / "data/journal").glob("*.jnl")}) == 2


async def test_b7_no_log_at_all(tmp_path: Path) -> None:
    """Standard output that was closed refuses the start: its number may be any file's by now."""
    program = "from provider_core.cli import main; main()"
    script = 'exec "$0" -c "$1" serve --port 0 --data-dir "$2" >&-'
    process = await asyncio.create_subprocess_exec(
        *("sh", "-c", script, sys.executable, program, str(tmp_path)),
        stderr=asyncio.subprocess.PIPE,
    )
    _, said = await process.communicate()
    assert (process.returncode, said.count(b"\n")) == (2, 1)
    assert b"standard output is closed" in said
