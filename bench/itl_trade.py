"""What `engine.target_itl_s` trades: inter-token latency against throughput, with a chart.

``python -m bench.itl_trade MODEL_DIR --svg FILE`` serves the model once for each target and streams
64 tokens behind prompts of 128 to 32 clients.
"""

import argparse
import json
import subprocess
import tempfile
from pathlib import Path

from bench.llama_server import serve_decoder
from bench.processes import KEY, PROVIDER
from provider_core.loadtest.svg import Chart, Series, render

TARGETS_S = (0.08, 0.15, 0.3, 10.0)


def measure(model: Path, target_s: float) -> tuple[float, float, float]:
    """Inter-token latency p95 and time to first token p95 in ms, output tokens per second."""
    environment = {"PROVIDER_ENGINE__TARGET_ITL_S": str(target_s)}
    with tempfile.NamedTemporaryFile() as file, serve_decoder(model, **environment) as port:
        subprocess.run(
            f"{PROVIDER} bench http://127.0.0.1:{port}/v1/completions --key {KEY} --concurrency 32"
            f" --requests 96 --warmup 32 --vocabulary 300-30000 --json {file.name}".split(),
            check=True,
            stdout=subprocess.DEVNULL,
        )
        point = json.loads(Path(file.name).read_bytes())["points"][0]
    figures = point["targets"][0]["figures"]
    names = ("itl_p95_ms", "ttft_p95_ms", "output_tokens_per_s")
    itl, ttft, rate = (figures[name]["median"] for name in names)
    return itl, ttft, rate


def main() -> None:
    """Measure, print and draw."""
    parser = argparse.ArgumentParser()
    parser.add_argument("model", type=Path)
    parser.add_argument("--svg", type=Path)
    arguments = parser.parse_args()
    points = []
    for target_s in TARGETS_S:
        itl, ttft, rate = measure(arguments.model, target_s)
        points.append((itl, rate))
        print(
            f"target {target_s} s: ITL p95 {itl:.0f} ms, TTFT p95 {ttft:.0f} ms, {rate:.0f} tok/s"
        )
    if arguments.svg is not None:
        chart = Chart(
            name="itl-trade",
            title="32 clients: what engine.target_itl_s trades",
            x_label="inter-token latency p95 in ms",
            y_label="output tokens per second",
            series=[Series("provider-core", points, names=[f"{t} s" for t in TARGETS_S])],
        )
        arguments.svg.write_text(render(chart), encoding="utf-8")


if __name__ == "__main__":
    main()
