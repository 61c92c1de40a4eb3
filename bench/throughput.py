"""How fast the built-in model is served, end to end over HTTP, by number of clients.

``python -m bench.throughput`` starts `provider serve` and lets `provider bench` stream greedy
stories that do not end by themselves to 1, 8 and 32 clients at once.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from bench.start import KEY, free_port, wait_until_ready

STORY = {
    "messages": [{"role": "user", "content": "Tell me a story about a fox."}],
    "max_tokens": 256,
}


def main() -> None:
    """Measure and print."""
    port = free_port()
    provider = str(Path(sys.executable).with_name("provider"))
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder) / "story.jsonl"
        trace.write_text(json.dumps(STORY), encoding="utf-8")
        process = subprocess.Popen(
            [provider, "serve", "--port", str(port), "--data-dir", folder],
            env={**os.environ, "PROVIDER_API_KEY": KEY},  # noqa: TID251 - passed on, not read
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            wait_until_ready(process, port)
            url = f"http://127.0.0.1:{port}/v1/chat/completions"
            load = ["--key", KEY, "--trace", str(trace), "--concurrency", "1,8,32"]
            subprocess.run([provider, "bench", url, *load], check=True)
        finally:
            process.terminate()
            process.wait()


if __name__ == "__main__":
    main()
