"""What a start costs: `import provider_core`, and process start to first token.

``python -m bench.start [MODEL_DIR]`` starts `provider serve` as a user does, several times over,
and asks for one streamed token as soon as the server is ready.
"""

import asyncio
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

from bench.load import stream_chat

KEY = "sk-bench-start-key"
RUNS = 7
_POLL_S = 0.005


def import_s() -> float:
    """Wall time of `import provider_core` inside a fresh interpreter, its own start left out."""
    code = (
        "import time; t = time.perf_counter(); import provider_core; print(time.perf_counter() - t)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return float(run.stdout)


def first_token_s(model_dir: str | None) -> tuple[float, float]:
    """Seconds from process start to ready, and to the first streamed token."""
    port = free_port()
    with tempfile.TemporaryDirectory() as data_dir:
        provider = Path(sys.executable).with_name("provider")
        command = [str(provider), "serve", "--port", str(port)]
        command += ["--data-dir", data_dir]
        if model_dir is not None:
            command += ["--model", model_dir]
        started = time.perf_counter()
        process = subprocess.Popen(
            command,
            env={**os.environ, "PROVIDER_API_KEY": KEY},  # noqa: TID251 - passed on, not read
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            wait_until_ready(process, port)
            ready = time.perf_counter() - started
            body: dict[str, object] = {
                "model": "starter" if model_dir is None else Path(model_dir).name,
                "messages": [{"role": "user", "content": "Hello!"}],
                "max_tokens": 2,
            }
            reply = asyncio.run(stream_chat("127.0.0.1", port, KEY, body))
            return ready, time.perf_counter() - started - (reply.total_s - reply.ttft_s)
        finally:
            process.terminate()
            process.wait()


def free_port() -> int:
    """A loopback port nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_until_ready(process: subprocess.Popen[bytes], port: int, *, path: str = "/readyz") -> None:
    """Poll a server's readiness.

    Raises:
        RuntimeError: The server ended instead.
    """
    while not _is_ready(port, path):
        if process.poll() is not None:
            raise RuntimeError(f"the server ended with {process.returncode}")
        time.sleep(_POLL_S)


def _is_ready(port: int, path: str) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=1) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def main() -> None:
    """Measure and print medians."""
    model_dir = sys.argv[1] if len(sys.argv) > 1 else None
    imports = [import_s() * 1000 for _ in range(RUNS)]
    print(f"import provider_core: {statistics.median(imports):.0f} ms")
    runs = [first_token_s(model_dir) for _ in range(RUNS)]
    print(f"process start to ready: {statistics.median(r for r, _ in runs):.2f} s")
    print(f"process start to first token: {statistics.median(t for _, t in runs):.2f} s")


if __name__ == "__main__":
    main()
