"""What a start costs: `import provider_core`, and process start to first token.

``python -m bench.start [MODEL_DIR]`` starts `provider serve` as a user does, several times over,
and asks for one streamed token as soon as the server is ready. Modules are compiled before, in a
folder of their own, as installing a package compiles them. On a machine that does other work the
best of the runs says more than the median; so does the processor time.
"""

import asyncio
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
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


def first_token_s(model_dir: str | None, compiled: str) -> tuple[float, float, float]:
    """Seconds from process start to ready, to the first streamed token, and of processors in all.

    Args:
        model_dir: The model's folder; `None` for the built-in one.
        compiled: Folder of compiled modules.
    """
    options = [] if model_dir is None else ["--model", model_dir]
    body: dict[str, object] = {
        "model": "starter" if model_dir is None else Path(model_dir).name,
        "messages": [{"role": "user", "content": "Hello!"}],
        "max_tokens": 2,
    }
    environment = {"PYTHONPYCACHEPREFIX": compiled, "PYTHONDONTWRITEBYTECODE": ""}
    used = _processor_s()
    started = time.perf_counter()
    with serve_provider(*options, **environment) as port:
        ready = time.perf_counter() - started
        reply = asyncio.run(stream_chat("127.0.0.1", port, KEY, body))
        first_token = time.perf_counter() - started - (reply.total_s - reply.ttft_s)
    return ready, first_token, _processor_s() - used


def _processor_s() -> float:
    """Seconds that ended child processes used."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _describe(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.2f} s, best {min(values):.2f} s"


def main() -> None:
    """Measure and print medians and bests."""
    model_dir = sys.argv[1] if len(sys.argv) > 1 else None
    imports = [import_s() * 1000 for _ in range(RUNS)]
    print(f"import provider_core: {statistics.median(imports):.0f} ms")
    with tempfile.TemporaryDirectory() as compiled:
        first_token_s(model_dir, compiled)
        runs = [first_token_s(model_dir, compiled) for _ in range(RUNS)]
    ready, first_token, processor = zip(*runs, strict=True)
    print(f"process start to ready: {_describe(ready)}")
    print(f"process start to first token: {_describe(first_token)}")
    print(f"processor time to the end: {_describe(processor)}")


if __name__ == "__main__":
    main()
