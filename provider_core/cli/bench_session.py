"""What `provider bench` does: from options to a plan, a report, and what people read."""

import asyncio
import math
import platform
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from os import cpu_count, getpid
from pathlib import Path
from threading import current_thread, main_thread
from typing import TypeVar

import orjson
import typer
import uvloop

from provider_core.cli.bench_results import publish
from provider_core.cli.outputs import Outputs
from provider_core.errors import ConfigurationError
from provider_core.loadtest.machine import (
    Snapshot,
    ancestors,
    find_listener,
    resident_bytes,
    take_snapshot,
)
from provider_core.loadtest.report import Report
from provider_core.loadtest.summary import Slo
from provider_core.loadtest.sweep import Plan, Sweep, cross, first_model
from provider_core.loadtest.target import Sampling, Target, make_target
from provider_core.loadtest.workload import Length, PromptKind, Workload, read_trace

EXIT_UNANSWERED = 2
EXIT_NOISY = 3
EXIT_INTERRUPTED = 130
LOCAL_HOSTS = ("localhost", "127.0.0.1", "::1")
N = TypeVar("N", int, float)

DEFAULT_PROMPT_TOKENS = "128"
DEFAULT_ROUNDS = (1, 3)  # for one server, for two


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """What the command line says about one server."""

    url: str
    name: str = ""
    key: str | None = None
    model: str | None = None
    path: str | None = None
    pid: int | None = None
    body: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchOptions:
    """The command line of `provider bench`."""

    servers: Sequence[ServerOptions]
    concurrency: str | None = None
    rate: str | None = None
    num_requests: int | None = None
    duration_s: float = 30.0
    rounds: int | None = None
    num_warmup: int = 2
    timeout_s: float = 600.0
    prompt_tokens: str | None = None
    output_tokens: str = "64"
    shared_prefix_tokens: int = 0
    prompts: PromptKind | None = None
    vocabulary: str = "100-2000"
    trace: Path | None = None
    temperature: float = 0.0
    ignore_eos: bool = True
    seed: int = 0
    max_noise: float = 0.1
    allow_noise: bool = False
    slo: str | None = None
    outputs: Outputs = field(default_factory=Outputs)


def run_bench(
    options: BenchOptions, snapshot: Callable[[], Snapshot | None] = take_snapshot
) -> int:
    """Measure, print, write files.

    Args:
        options: The command line.
        snapshot: Reads the machine's counters.

    Returns:
        The exit code: 0, 2 if a server answered nothing at a point, 3 for a comparison refused, 130
        after an interrupt.

    Raises:
        ConfigurationError: An option is wrong, or a server cannot be measured.
    """
    options.outputs.check()
    _check_finite(options)
    targets = [_target(options, index) for index in range(len(options.servers))]
    if len({target.label for target in targets}) < len(targets):
        raise ConfigurationError("--name and --compare-name are the same")
    plan = _plan(options, is_chat=[target.dialect == "chat" for target in targets])
    report = Report(targets=[], host=_host(), started="", settings={}, max_noise=options.max_noise)
    try:
        uvloop.run(_measure(options, targets, plan, report, snapshot))
    except (KeyboardInterrupt, asyncio.CancelledError):  # the former before there is a handler
        report.is_interrupted = True
    publish(report, options.outputs)
    unanswered = [] if report.is_interrupted else report.unanswered
    for measurement in unanswered:
        typer.echo(f"provider: no request was answered: {measurement}", err=True)
    if unanswered:
        return EXIT_UNANSWERED
    if report.refusal is not None:
        return EXIT_NOISY
    return EXIT_INTERRUPTED if report.is_interrupted else 0


async def _measure(
    options: BenchOptions,
    targets: list[Target],
    plan: Plan,
    report: Report,
    snapshot: Callable[[], Snapshot | None],
) -> None:
    """Fill the report; what it needs to know before the first round comes first.

    Raises:
        asyncio.CancelledError: Interrupted; the report holds what was measured until then.
        ConfigurationError: A server cannot be measured.
    """
    if current_thread() is main_thread() and (task := asyncio.current_task()) is not None:

        def interrupt() -> None:
            """Remember it here: a cancellation that meets an end may be lost on its way."""
            report.is_interrupted = True
            task.cancel()

        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, interrupt)
    named = [await _complete(target, plan.timeout_s) for target in targets]
    report.targets = [
        {"label": t.label, "url": t.url, "path": t.path, "model": t.model, "pid": t.pid}
        for t in named
    ]
    report.started = datetime.now(UTC).isoformat(timespec="seconds")
    report.slo = plan.slo
    report.is_noise_allowed = options.allow_noise
    report.settings = _settings(options, plan)
    sweep = Sweep(
        named,
        plan,
        report,
        on_round=lambda label, point, number: typer.echo(
            f"{label}: {point}, round {number + 1} of {plan.rounds}", err=True
        ),
        snapshot=snapshot,
    )
    await sweep.check()
    await sweep.run()


async def _complete(target: Target, timeout_s: float) -> Target:
    """Look up what the command line left open: the model, and a local server's process."""
    pid, model = target.pid, target.model
    if pid is not None:
        _check_pid(pid)
    if pid is None and target.host in LOCAL_HOSTS:
        pid = find_listener(target.port)
    if model is None and target.dialect != "llama":
        model = await first_model(target, timeout_s)
    return replace(target, pid=pid, model=model)


def _check_pid(pid: int) -> None:
    """See that a process may be taken for the server.

    Raises:
        ConfigurationError: It is not there, or started this process, as it did who knows what else.
    """
    if resident_bytes(pid) is None:
        raise ConfigurationError(f"--pid is {pid}, and no such process can be seen here")
    machine = take_snapshot()
    if machine is not None and pid in ancestors(machine.processes, getpid()):
        raise ConfigurationError(
            f"--pid is {pid}, {machine.processes[pid].name}, which started this command, so that "
            "all else that it started would count as the server; name the server's own process"
        )


def _target(options: BenchOptions, index: int) -> Target:
    server = options.servers[index]
    sampling = Sampling(
        temperature=options.temperature,
        ignore_eos=options.ignore_eos,
        extra=_json_object(server.body),
    )
    return make_target(
        server.url,
        label=server.name or "AB"[index],
        path=server.path,
        key=server.key,
        model=server.model,
        pid=server.pid,
        sampling=sampling,
    )


def _json_object(text: str | None) -> Mapping[str, object]:
    if text is None:
        return {}
    try:
        fields = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise ConfigurationError(f"--body is not JSON: {error}") from error
    if not isinstance(fields, dict):
        raise ConfigurationError("--body is not a JSON object")
    return fields


def _plan(options: BenchOptions, *, is_chat: Sequence[bool]) -> Plan:
    kind = options.prompts or ("text" if any(is_chat) else "ids")
    if kind == "ids" and any(is_chat):
        raise ConfigurationError("a chat takes no token ids; leave out --prompts ids")
    workload = Workload(
        prompt_tokens=Length(options.shared_prefix_tokens + 1),
        output_tokens=Length.parse(options.output_tokens),
        shared_prefix_tokens=options.shared_prefix_tokens,
        kind=kind,
        token_ids=_id_range(options.vocabulary),
    )
    if options.trace is not None and options.prompt_tokens is not None:
        raise ConfigurationError("the prompts are those of --trace; leave out --prompt-tokens")
    given = options.prompt_tokens or DEFAULT_PROMPT_TOKENS
    lengths = [Length.parse(part) for part in given.split(",")]
    trace = read_trace(options.trace, workload, options.seed) if options.trace else ()
    concurrency = _numbers(options.concurrency, "--concurrency", int)
    rates = _numbers(options.rate, "--rate", float)
    has_times = bool(trace) and trace[0].at_s is not None
    if not (concurrency or rates or has_times):
        concurrency = [1]
    steps = cross(
        concurrency=concurrency,
        rates=rates,
        prompt_tokens=lengths[:1] if trace else lengths,
        make_workload=lambda length: replace(workload, prompt_tokens=length, trace=trace),
    )
    return Plan(
        steps=steps,
        rounds=options.rounds or DEFAULT_ROUNDS[len(options.servers) - 1],
        num_requests=options.num_requests,
        duration_s=options.duration_s,
        num_warmup=options.num_warmup,
        timeout_s=options.timeout_s,
        seed=options.seed,
        slo=Slo.parse(options.slo) if options.slo else None,
    )


def _check_finite(options: BenchOptions) -> None:
    numbers = {
        "--duration": options.duration_s,
        "--timeout": options.timeout_s,
        "--temperature": options.temperature,
        "--max-noise": options.max_noise,
    }
    for option, number in numbers.items():
        if not math.isfinite(number):
            raise ConfigurationError(f"{option} is {number}, which is no finite number")


def _numbers(text: str | None, option: str, kind: type[N]) -> list[N]:
    try:
        numbers = [kind(part) for part in text.split(",")] if text else []
    except ValueError as error:
        raise ConfigurationError(f"{option} is {text!r}, not numbers such as 1,8,32") from error
    if not all(0 < number < math.inf for number in numbers):
        raise ConfigurationError(f"{option} is {text!r}; each must be more than 0, and finite")
    return numbers


def _id_range(text: str) -> tuple[int, int]:
    first, _, end = text.partition("-")
    if not (first.isdigit() and end.isdigit()):
        raise ConfigurationError(f"--vocabulary is {text!r}, not a range such as 100-2000")
    return int(first), int(end)


def _settings(options: BenchOptions, plan: Plan) -> dict[str, str | int | float | None]:
    """What the sweep was asked to do; no key is in it."""
    return {
        "rounds": plan.rounds,
        "requests": plan.num_requests,
        "duration_s": plan.duration_s if options.rate else None,
        "warmup": plan.num_warmup,
        "seed": plan.seed,
        "prompts": "trace" if options.trace else plan.steps[0].workload.kind,
        "shared_prefix_tokens": options.shared_prefix_tokens,
        "temperature": options.temperature,
        "ignore_eos": options.ignore_eos,
        "slo": None if plan.slo is None else str(plan.slo),
    }


def _host() -> str:
    name = platform.processor() or platform.machine()
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                name = line.partition(":")[2].strip()
                break
    except OSError:
        pass
    return f"{name}, {cpu_count()} processors, {platform.system()}"
