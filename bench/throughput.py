"""How fast the built-in model is served, end to end over HTTP, by number of clients.

``python -m bench.throughput`` starts `provider serve` and lets `provider bench` stream greedy
stories that do not end by themselves to 1, 8 and 32 clients at once.
"""

import json
import subprocess
import tempfile
from pathlib import Path

from bench.processes import KEY, PROVIDER, serve_provider

STORY = {
    "messages": [{"role": "user", "content": "Tell me a story about a fox."}],
    "max_tokens": 256,
}


def main() -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as folder, serve_provider() as port:
        trace = Path(folder) / "story.jsonl"
        trace.write_text(json.dumps(STORY), encoding="utf-8")
        url = f"http://127.0.0.1:{port}/v1/chat/completions"
        load = ["--key", KEY, "--trace", str(trace), "--concurrency", "1,8,32"]
        subprocess.run([PROVIDER, "bench", url, *load], check=True)


if __name__ == "__main__":
    main()
