"""Side by side with llama-server on this machine, in turns, through `provider bench`.

``python -m bench.llama_server MODEL_DIR LLAMA_SERVER GGUF --out DIR`` serves a decoder folder and a
GGUF file of the same shape, prompts as token ids, greedy, ends ignored, prefix caches and
speculation off on both sides. With ``--start`` it measures process start to first token instead.
How to build the peer and its file: docs/performance.md.
"""

import argparse
import json
import statistics
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

from bench.processes import KEY, PROVIDER, free_port, run_server, serve_provider

THREADS, SLOTS = 2, 32
POINTS = (  # clients, prompt tokens, requests a round
    ("1", "128", "5"),
    ("8", "128", "24"),
    ("32", "128", "64"),
    ("8", "400", "16"),
)


@contextmanager
def serve_decoder(model: Path, **environment: str) -> Iterator[int]:
    """Serve a decoder folder as `peer`, without prefix cache and speculation; yield the port."""
    with tempfile.NamedTemporaryFile("w", suffix=".toml", encoding="utf-8") as config:
        config.write(
            f'[[model]]\nid = "peer"\nsource = "{model.resolve()}"\nprefix_cache_mib = 0\n'
            f'max_num_seqs = {SLOTS}\n[engine]\nspeculation = "off"\n'
        )
        config.flush()
        with serve_provider("--config", config.name, **environment) as port:
            yield port


@contextmanager
def serve_llama(binary: Path, gguf: Path) -> Iterator[int]:
    """Serve a GGUF file with as many threads and slots, 640 positions each; yield the port."""
    port = free_port()
    command = f"{binary} -m {gguf} -t {THREADS} -np {SLOTS} -c {SLOTS * 640} --port {port}"
    with run_server(command.split(), port, "/health", {}):
        yield port


def first_token_s(server: AbstractContextManager[int], path: str, body: dict[str, object]) -> float:
    """Seconds from the start of a server's process to the first token of 8 prompt tokens."""
    request = {"prompt": list(range(300, 308)), "max_tokens": 1, "n_predict": 1, **body}
    began = time.perf_counter()
    with server as port:
        asked = urllib.request.Request(
            f"http://127.0.0.1:{port}{path}",
            json.dumps(request).encode(),
            {"Content-Type": "application/json", "Authorization": f"Bearer {KEY}"},
        )
        with urllib.request.urlopen(asked) as answer:  # noqa: S310 - a loopback URL
            answer.read()
        return time.perf_counter() - began


def compare_starts(model: Path, binary: Path, gguf: Path, rounds: int) -> None:
    """Start both servers in turns and print the medians."""
    ours, theirs = [], []
    with tempfile.TemporaryDirectory() as compiled:  # as installing a package compiles modules
        environment = {"PYTHONPYCACHEPREFIX": compiled, "PYTHONDONTWRITEBYTECODE": ""}
        for _ in range(rounds + 1):
            server = serve_decoder(model, **environment)
            ours.append(first_token_s(server, "/v1/completions", {"model": "peer"}))
            theirs.append(first_token_s(serve_llama(binary, gguf), "/completion", {}))
    mine, peer = statistics.median(ours[1:]), statistics.median(theirs[1:])
    print(f"process start to first token: {mine:.2f} s, llama-server {peer:.2f} s")
    print(f"ratio {mine / peer:.2f}; the first of each, which may build a cache, left out")


def main() -> None:
    """Measure each point of the table and keep the reports."""
    parser = argparse.ArgumentParser()
    parser.add_argument("model", type=Path)
    parser.add_argument("llama_server", type=Path)
    parser.add_argument("gguf", type=Path)
    parser.add_argument("--out", type=Path, default=Path("bench-results"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--start", action="store_true")
    arguments = parser.parse_args()
    peer = (arguments.llama_server, arguments.gguf)
    if arguments.start:
        compare_starts(arguments.model, *peer, arguments.rounds)
        return
    arguments.out.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        ours = stack.enter_context(serve_decoder(arguments.model))
        theirs = stack.enter_context(serve_llama(*peer))
        for clients, prompt, requests in POINTS:
            report = arguments.out / f"c{clients}-p{prompt}"
            load = f"--concurrency {clients} --prompt-tokens {prompt} --requests {requests}"
            subprocess.run(
                f"{PROVIDER} bench http://127.0.0.1:{ours}/v1/completions --key {KEY}"
                f" --name provider-core --compare http://127.0.0.1:{theirs}/completion"
                f" --compare-name llama-server {load} --output-tokens 64 --warmup {clients}"
                f" --vocabulary 300-30000 --rounds {arguments.rounds}"
                f" --json {report}.json --html {report}.html".split(),
                check=False,  # a noisy machine is said by bench itself; the other points go on
            )


if __name__ == "__main__":
    main()
