"""What the core costs: CPU per streamed token, and time added before the first one.

``python -m bench.core_cost`` starts a server over a scripted runner in a process of its own, loads
it with 32 clients while each step takes 5 ms, and reads the server's CPU time from the kernel. Then
it asks an unpaced server one request at a time: all of that time to first token is the core's.
"""

import asyncio
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.load import stream_chat
from provider_core.loadtest.replies import Reply
from tests.serving import KEY

CLIENTS = 32
TOKENS = 1000
SINGLE_REQUESTS = 300
_TICKS_PER_S = 100


@contextmanager
def scripted_server(step_ms: float) -> Iterator[tuple[int, int]]:
    """Run `bench.scripted_server`; yields its process id and port."""
    command = [sys.executable, "-m", "bench.scripted_server", "--step-ms", str(step_ms)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        if process.stdout is None:
            raise RuntimeError("no pipe")
        try:
            yield process.pid, int(process.stdout.readline())
        finally:
            process.terminate()


def cpu_s(pid: int) -> float:
    """User and system time of a process: fields 14 and 15 of `/proc/<pid>/stat`."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S


def body(tokens: int) -> dict[str, object]:
    """A greedy chat request for so many tokens."""
    return {
        "model": "test-model",
        "messages": [{"role": "user", "content": "Say something."}],
        "max_tokens": tokens,
        "ignore_eos": True,
        "temperature": 0,
    }


async def load(port: int, clients: int, tokens: int) -> list[Reply]:
    """Run so many clients at once."""
    return await asyncio.gather(
        *(stream_chat("127.0.0.1", port, KEY, body(tokens)) for _ in range(clients))
    )


def main() -> None:
    """Measure and print."""
    with scripted_server(step_ms=5) as (pid, port):
        asyncio.run(load(port, CLIENTS, 50))  # warm
        before, own = cpu_s(pid), time.process_time()
        replies = asyncio.run(load(port, CLIENTS, TOKENS))
        spent, own = cpu_s(pid) - before, time.process_time() - own
        events = sum(len(reply.arrivals_s) for reply in replies)
        print(f"streamed {events} content events to {CLIENTS} clients")
        print(f"server CPU per streamed token: {spent / (CLIENTS * TOKENS) * 1e6:.1f} us")
        print(f"load generator CPU per event: {own / events * 1e6:.1f} us")
    with scripted_server(step_ms=0) as (_, port):
        ttft = []
        for _ in range(SINGLE_REQUESTS):
            (reply,) = asyncio.run(load(port, 1, 2))
            ttft.append(reply.ttft_s * 1000)
        p50, p99 = statistics.median(ttft), statistics.quantiles(ttft, n=100)[98]
        print(f"time to first token of an instant model: p50 {p50:.2f} ms, p99 {p99:.2f} ms")


if __name__ == "__main__":
    main()
