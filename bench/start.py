"""What a start costs: `import provider_core`, and process start to first token.

``python -m bench.start [MODEL_DIR]`` starts `provider serve` as a user does, several times over,
and asks for one streamed token as soon as the server is ready.
"""

import asyncio
import statistics
import subprocess
import sys
import time
from pathlib import Path

from bench.load import stream_chat
from bench.processes import KEY, serve_provider

RUNS = 7


def import_s() -> float:
    """Wall time of `import provider_core` inside a fresh interpreter, its own start left out."""
    code = (
        "import time; t = time.perf_counter(); import provider_core; print(time.perf_counter() - t)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return float(run.stdout)


def first_token_s(model_dir: str | None) -> tuple[float, float]:
    """Seconds from process start to ready, and to the first streamed token."""
    options = [] if model_dir is None else ["--model", model_dir]
    body: dict[str, object] = {
        "model": "starter" if model_dir is None else Path(model_dir).name,
        "messages": [{"role": "user", "content": "Hello!"}],
        "max_tokens": 2,
    }
    started = time.perf_counter()
    with serve_provider(*options) as port:
        ready = time.perf_counter() - started
        reply = asyncio.run(stream_chat("127.0.0.1", port, KEY, body))
        return ready, time.perf_counter() - started - (reply.total_s - reply.ttft_s)


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
