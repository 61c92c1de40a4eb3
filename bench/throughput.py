"""How fast the built-in model is served, end to end over HTTP, by number of clients.

``python -m bench.throughput`` starts `provider serve` and streams greedy stories that do not end by
themselves to 1, 8 and 32 clients at once.
"""

import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench.load import Reply, stream_chat
from bench.start import KEY, free_port, wait_until_ready

CLIENTS = (1, 8, 32)
TOKENS = 256


async def crowd(port: int, clients: int) -> list[Reply]:
    """Stream to so many clients at once."""
    body: dict[str, object] = {
        "model": "starter",
        "messages": [{"role": "user", "content": "Tell me a story about a fox."}],
        "max_tokens": TOKENS,
        "ignore_eos": True,
        "temperature": 0,
    }
    return await asyncio.gather(
        *(stream_chat("127.0.0.1", port, KEY, body) for _ in range(clients))
    )


def main() -> None:
    """Measure and print."""
    port = free_port()
    provider = Path(sys.executable).with_name("provider")
    with tempfile.TemporaryDirectory() as data_dir:
        process = subprocess.Popen(
            [str(provider), "serve", "--port", str(port), "--data-dir", data_dir],
            env={**os.environ, "PROVIDER_API_KEY": KEY},  # noqa: TID251 - passed on, not read
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            wait_until_ready(process, port)
            asyncio.run(crowd(port, 2))  # warm
            print("clients   tokens/s   TTFT p50   TTFT p95   gap p95")
            for clients in CLIENTS:
                started = time.perf_counter()
                replies = asyncio.run(crowd(port, clients))
                elapsed = time.perf_counter() - started
                ttft = sorted(reply.ttft_s * 1000 for reply in replies)
                gaps = sorted(gap * 1000 for reply in replies for gap in reply.gaps_s)
                print(
                    f"{clients:7} {clients * TOKENS / elapsed:10.0f}"
                    f" {statistics.median(ttft):7.1f} ms"
                    f" {ttft[int(0.95 * (len(ttft) - 1))]:7.1f} ms"
                    f" {gaps[int(0.95 * (len(gaps) - 1))]:6.1f} ms"
                )
        finally:
            process.terminate()
            process.wait()


if __name__ == "__main__":
    main()
