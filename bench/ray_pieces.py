"""What a streamed piece costs on Ray Serve beside its server: processor time of each process.

``python -m bench.ray_pieces`` starts two replicas of the built-in model (the environment of
`make client-packages` has Ray), streams through Ray's proxy and then through the ingress's own
port, and reads what each process used from /proc. What they use while nothing runs is taken off.
"""

import asyncio
import os
import subprocess
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import aiohttp

from bench.processes import KEY, free_port

ROOT = Path(__file__).parents[1]
PYTHON = ROOT / "tests/ray/.venv/bin/python"
STREAMS, TOKENS = 16, 400
IDLE_S = 3.0
KINDS = ("ProxyActor", "default:ingress", "default:replicas", "raylet/raylet", "gcs_server")
_TICKS_S = 1 / os.sysconf("SC_CLK_TCK")


@contextmanager
def cluster(folder: str, proxy_port: int, port: int) -> Iterator[int]:
    """Run a cluster until the block ends; gives its process."""
    environment = {
        **os.environ,  # noqa: TID251 - passed on, not read
        "PROVIDER_API_KEY": KEY,
        "PROVIDER_DATA_DIR": f"{folder}/data",
    }
    command = [PYTHON, "-P", ROOT / "tests/platform/ray/cluster.py", folder, proxy_port, port]
    with subprocess.Popen(
        list(map(str, command)),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment,
        cwd=folder,
    ) as process:
        if process.stdin is None or process.stdout is None:
            raise RuntimeError("there are no pipes to the cluster")
        while (line := process.stdout.readline()) != b"ready\n":
            if not line:
                raise RuntimeError("the cluster did not start")
        yield process.pid
        process.stdin.close()


def used_s(folder: str) -> dict[str, float]:
    """Processor seconds until now, of each kind of process that belongs to the cluster."""
    used: dict[str, float] = defaultdict(float)
    for path in Path("/proc").iterdir():
        try:
            if f"PROVIDER_DATA_DIR={folder}".encode() not in (path / "environ").read_bytes():
                continue
            name = (path / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            fields = (path / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        except OSError:
            continue
        kind = next((each for each in KINDS if each in name), "other")
        if name.rstrip().endswith("serve"):
            kind = "server"
        used[kind] += (int(fields[11]) + int(fields[12])) * _TICKS_S
    return used


async def stream(session: aiohttp.ClientSession, port: int, number: int) -> int:
    """Pieces of one answer."""
    body = {
        "model": "starter",
        "messages": [{"role": "user", "content": f"{number}!"}],
        "max_tokens": TOKENS,
        "ignore_eos": True,
        "stream": True,
    }
    url = f"http://127.0.0.1:{port}/v1/chat/completions"
    headers = {"Authorization": f"Bearer {KEY}"}
    async with session.post(url, json=body, headers=headers) as answer:
        return sum([data.count(b"data: ") async for data in answer.content.iter_any()])


async def measure(folder: str, name: str, port: int) -> None:
    """Stream, and print microseconds for each piece."""
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        await asyncio.gather(*(stream(session, port, number) for number in range(4)))
        idle = used_s(folder)
        await asyncio.sleep(IDLE_S)
        begun, start_s = used_s(folder), time.perf_counter()
        pieces = sum(
            await asyncio.gather(*(stream(session, port, number) for number in range(STREAMS)))
        )
        wall_s = time.perf_counter() - start_s
    ended = used_s(folder)
    print(f"{name}: {pieces} pieces, {pieces / wall_s:.0f} a second")
    cost_s = {
        kind: ended[kind] - begun[kind] - (begun[kind] - idle[kind]) / IDLE_S * wall_s
        for kind in ended
    }
    for kind in (*KINDS[:3], "server"):
        print(f"  {kind:18} {1e6 * cost_s[kind] / pieces:6.0f} us a piece")
    beside = sum(cost for kind, cost in cost_s.items() if kind != "server")
    print(f"  all but the server {1e6 * beside / pieces:6.0f} us a piece")


def main() -> None:
    """Measure both ways in."""
    proxy_port, port = free_port(), free_port()
    with TemporaryDirectory(dir="/tmp") as folder, cluster(folder, proxy_port, port):
        for name, each in (("Ray's proxy", proxy_port), ("the ingress's port", port)):
            asyncio.run(measure(folder, name, each))


if __name__ == "__main__":
    main()
