"""`provider plan` against two real servers: it says before what is measured after."""

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from itertools import takewhile
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import pytest

from provider_core.cli.plan_session import PlanOptions, run_plan
from provider_core.loadtest.arrivals import poisson_arrivals
from provider_core.loadtest.exchange import Client
from provider_core.loadtest.replies import Reply
from provider_core.loadtest.summary import Summary, summarise
from provider_core.loadtest.target import make_target
from provider_core.loadtest.workload import Length, Request, Workload, read_trace
from tests.plan_server import SLOTS
from tests.serving import KEY

ROOT = Path(__file__).parents[2]
PROVIDER = [sys.executable, "-c", "from provider_core.cli import main; main()"]
RUNNER = {"step_time_s": 0.025, "prefill_token_time_s": 0.001}
SEED = 7
TOLERANCE = 0.2


@pytest.fixture(scope="module")
def urls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    """Two replicas that serve."""
    with ExitStack() as stack:
        processes = []
        for _ in range(2):
            folder = str(tmp_path_factory.mktemp("replica"))
            process = subprocess.Popen(
                [sys.executable, "-m", "tests.plan_server", folder, json.dumps(RUNNER)],
                cwd=ROOT,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
            stack.enter_context(process)
            stack.callback(process.terminate)
            processes.append(process)
        ports = [int(process.stdout.readline()) for process in processes if process.stdout]
        yield [f"http://127.0.0.1:{port}" for port in ports]


@pytest.fixture(scope="module")
def rates(urls: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `provider bench` measures of one of them."""
    file = tmp_path_factory.mktemp("rates") / "rates.json"
    prompts = ["--prompt-tokens", "16,128", "--vocabulary", "0-250", "--output-tokens", 8]
    load = ["--concurrency", "1,4", "--requests", 4, "--warmup", 1]
    command = [*PROVIDER, "bench", urls[0], "--key", KEY, *prompts, *load, "--json", file]
    subprocess.run(list(map(str, command)), cwd=ROOT, check=True)
    return file


def arrival_times(kind: str, *, rate: float, duration_s: float, seed: int) -> list[float]:
    """Seconds at which requests come: evenly likely, in bursts of two to ten, or ever more."""
    random = np.random.default_rng((seed, 1))
    times = takewhile(lambda at_s: at_s < duration_s, poisson_arrivals(2 * rate, (seed,)))
    match kind:
        case "bursty":
            bursts = takewhile(lambda at_s: at_s < duration_s, poisson_arrivals(rate / 6, (seed,)))
            return sorted(
                at_s + each
                for at_s in bursts
                for each in random.uniform(0, 0.2, random.integers(2, 11))
            )
        case "ramp":
            return [at_s for at_s in times if random.uniform() < at_s / duration_s]
        case _:
            return [at_s for at_s in times if random.uniform() < 0.5]


def write_trace(path: Path, times: Iterable[float], seed: int) -> None:
    """Requests of many lengths, which no benchmark asked for."""
    random = np.random.default_rng(seed)
    lines = [
        {
            "timestamp": at_s,
            "prompt_tokens": int(random.integers(8, 200)),
            "max_tokens": int(random.integers(4, 24)),
        }
        for at_s in times
    ]
    path.write_text("\n".join(map(json.dumps, lines)))


def predict(rates: Path, trace: Path, plan: Path) -> dict[str, Any]:
    """What `provider plan` says of two replicas."""
    options = PlanOptions(
        rates=rates,
        trace=trace,
        min_replicas=2,
        max_replicas=2,
        slots=SLOTS,
        max_ongoing=10_000,
        cold_start_s=0,
        price_per_hour=1,
        json_file=str(plan),
    )
    assert run_plan(options) == 0
    forecast: dict[str, Any] = json.loads(plan.read_bytes())["forecast"]
    return forecast


async def replay(urls: list[str], requests: tuple[Request, ...]) -> Summary:
    """Send each request at its time to the replica with the fewest ongoing ones."""
    targets = [make_target(url, label=url, key=KEY, model="test-model") for url in urls]
    clients = [Client(target, timeout_s=600) for target in targets]
    ongoing = [0] * len(urls)
    replies: list[Reply] = []
    messages = [targets[0].post(request) for request in requests]
    start_s = perf_counter()

    async def ask(message: bytes, at_s: float) -> None:
        await asyncio.sleep(start_s + at_s - perf_counter())
        least = ongoing.index(min(ongoing))
        ongoing[least] += 1
        replies.append(await clients[least].stream(message))
        ongoing[least] -= 1

    await asyncio.gather(
        *(ask(message, each.at_s or 0.0) for message, each in zip(messages, requests, strict=True))
    )
    return summarise(replies)


BUSY, OVERLOADED = ("poisson", 4.0, 5.0), ("poisson", 30.0, 1.0)
LONG = [
    ("poisson", 4.0, 120.0),
    ("poisson", 5.0, 60.0),
    ("bursty", 5.0, 60.0),
    ("ramp", 5.0, 60.0),
    ("poisson", 30.0, 10.0),
]


@pytest.mark.parametrize(
    ("traffic", "seed"),
    [
        pytest.param(BUSY, SEED, id="busy"),
        pytest.param(OVERLOADED, SEED, id="overloaded"),
        *(
            pytest.param(traffic, seed, marks=[pytest.mark.soak, pytest.mark.timeout(300)])
            for traffic in LONG
            for seed in (1, 2, 3)
        ),
    ],
)
def test_two_replicas_do_what_was_predicted(
    urls: list[str], rates: Path, tmp_path: Path, traffic: tuple[str, float, float], seed: int
) -> None:
    """Throughput and p95 TTFT of a trace, from rates that one replica showed with other requests.

    While it is busy, requests come in faster than they are answered now and then; overloaded,
    throughput is all that the replicas can do, and a queue grows.
    """
    kind, rate, duration_s = traffic
    trace = tmp_path / "trace.jsonl"
    write_trace(trace, arrival_times(kind, rate=rate, duration_s=duration_s, seed=seed), seed)
    workload = Workload(prompt_tokens=Length(1), output_tokens=Length(1), token_ids=(0, 250))

    predicted = predict(rates, trace, tmp_path / "plan.json")
    measured = asyncio.run(replay(urls, read_trace(trace, workload, SEED)))

    assert measured.num_ok == predicted["num_requests"]
    assert predicted["output_tokens"] == measured.output_tokens
    assert predicted["output_tokens_per_s"] == pytest.approx(
        measured.output_tokens_per_s, rel=TOLERANCE
    )
    assert predicted["ttft"]["p95_s"] == pytest.approx(measured.ttft.p95, rel=TOLERANCE)
