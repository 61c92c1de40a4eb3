"""`provider bench` against the real server over a scripted runner."""

import asyncio
import json
import os
import signal
import sys
from dataclasses import replace
from itertools import islice, takewhile
from math import inf
from pathlib import Path
from typing import Any

import pytest

from provider_core.cli.bench import bench as bench_command
from provider_core.cli.bench_results import publish
from provider_core.cli.bench_session import (
    EXIT_NOISY,
    EXIT_UNANSWERED,
    BenchOptions,
    ServerOptions,
    run_bench,
)
from provider_core.cli.outputs import Outputs
from provider_core.errors import ConfigurationError
from provider_core.loadtest.arrivals import poisson_arrivals
from provider_core.loadtest.machine import Snapshot
from provider_core.loadtest.replies import DONE
from tests.serving import KEY, ids_of, scripted_runner, serving
from tests.unit.loadtest.made_reports import made_point, made_report, made_round
from tests.unit.loadtest.scripted_stream import END, HEAD, chunk, scripted_stream, text

ROOT = Path(__file__).parents[2]
REPLY = ids_of("over and over ") * 50
BENCH = "from provider_core.cli import main; main()"


def quiet() -> Snapshot | None:
    """A machine where nobody else works."""
    return Snapshot(0.0, 0.0, {})


class Loud:
    """A machine where others took an hour of CPU time between any two looks."""

    def __init__(self) -> None:
        self.busy_s = 0.0

    def __call__(self) -> Snapshot | None:
        """An hour later."""
        self.busy_s += 3600.0
        return Snapshot(self.busy_s, 0.0, {})


def options(url: str, tmp_path: Path, **changes: Any) -> BenchOptions:
    """A small run with a JSON file."""
    plain = BenchOptions(
        servers=[ServerOptions(url, key=KEY)],
        num_requests=4,
        prompt_tokens="16",
        output_tokens="8",
        vocabulary="0-256",
        outputs=Outputs(json_file=str(tmp_path / "report.json")),
    )
    return replace(plain, **changes)


async def bench(chosen: BenchOptions, snapshot: Any = quiet) -> tuple[int, dict[str, Any]]:
    """Run it beside the server's loop; its exit code and JSON."""

    def run() -> tuple[int, dict[str, Any]]:
        code = run_bench(chosen, snapshot)
        return code, json.loads(Path(str(chosen.outputs.json_file)).read_text())

    return await asyncio.to_thread(run)


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/chat/completions"])
async def test_a_closed_loop_counts_what_the_server_bills(path: str, tmp_path: Path) -> None:
    """Every token asked for, at every number of clients, by the server's own count."""
    async with serving(scripted_runner(reply=REPLY)) as served:
        server = ServerOptions(served.url, key=KEY, path=path)
        code, report = await bench(
            options(served.url, tmp_path, servers=[server], concurrency="1,3", num_warmup=0)
        )
        await served.settled()
        billed = sum(event["completion_tokens"] for event in served.usage.events)

    rounds = [point["targets"][0]["rounds"][0] for point in report["points"]]
    assert code == 0
    assert [point["concurrency"] for point in report["points"]] == [1, 3]
    assert [(turn["ok"], turn["output_tokens"]) for turn in rounds] == [(4, 32), (4, 32)]
    assert {turn["counted_by"] for turn in rounds} == {"usage"}
    assert billed == 64 + 2  # and the two tokens of the first look
    assert report["targets"][0]["model"] == "test-model"
    if path == "/v1/completions":
        assert [turn["prompt_tokens"] for turn in rounds] == [64, 64]
    for turn in rounds:
        metrics = turn["metrics"]
        assert 0 < metrics["ttft_p50_ms"] <= metrics["e2e_p50_ms"] <= 1000 * turn["wall_s"]


async def test_two_servers_take_turns_and_are_compared(tmp_path: Path) -> None:
    """Three rounds each unless told otherwise, all in one report with its page and charts."""
    async with serving(scripted_runner(reply=REPLY)) as served:
        second = ServerOptions(served.url, name="chat", key=KEY, path="/v1/chat/completions")
        code, report = await bench(
            options(
                served.url,
                tmp_path,
                servers=[ServerOptions(served.url, name="ids", key=KEY), second],
                concurrency="1,2",
                prompts="text",
                outputs=Outputs(
                    json_file=str(tmp_path / "report.json"),
                    html_file=tmp_path / "report.html",
                    svg_dir=tmp_path / "charts",
                ),
            )
        )

    assert code == 0
    for point in report["points"]:
        assert [target["label"] for target in point["targets"]] == ["ids", "chat"]
        assert [len(target["rounds"]) for target in point["targets"]] == [3, 3]
        assert point["comparison"]["output_tokens_per_s"]["median"] > 0
    assert (tmp_path / "report.html").read_text().count("<svg") >= 5
    assert (tmp_path / "charts" / "throughput-by-concurrency.svg").exists()


async def test_a_noisy_machine_gets_no_comparison(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Exit code 3, the figure on stderr, no table; unless it is asked for."""
    async with serving(scripted_runner(reply=REPLY)) as served:
        servers = [ServerOptions(served.url, key=KEY), ServerOptions(served.url, key=KEY)]
        chosen = options(served.url, tmp_path, servers=servers, rounds=1)
        charts = tmp_path / "charts"
        chosen = replace(chosen, outputs=replace(chosen.outputs, svg_dir=charts))
        refused, report = await bench(chosen, Loud())
        assert not charts.exists()  # there is nothing to put there
        printed, said = capfd.readouterr()
        allowed, marked = await bench(replace(chosen, allow_noise=True), Loud())

    assert (refused, allowed) == (EXIT_NOISY, 0)
    assert "no comparison: the machine was not quiet: others used" in said
    assert "tok/s" not in printed
    assert "comparison" not in report["points"][0]
    assert "comparison" in marked["points"][0]
    assert (marked["quiet"], marked["noise_allowed"]) == (False, True)
    assert "tok/s" in capfd.readouterr().out


async def test_json_on_stdout_is_alone_there(tmp_path: Path) -> None:
    """The tables make room for it."""
    async with serving(scripted_runner(reply=REPLY)) as served:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", BENCH, "bench", served.url, "--vocabulary", "0-256",
            "--requests", "1", "--prompt-tokens", "4", "--output-tokens", "2", "--json", "-",
            cwd=tmp_path, env={"PYTHONPATH": str(ROOT), "PROVIDER_API_KEY": KEY},
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        printed, said = await process.communicate()

    assert (process.returncode, json.loads(printed)["schema"]) == (0, "provider-bench/1")
    assert b"tok/s" in said


async def test_an_open_loop_sends_as_long_as_it_was_told(tmp_path: Path) -> None:
    """What arrives in that time, however much; and it is counted over all of that time."""
    async with serving(scripted_runner(reply=REPLY)) as served:
        chosen = options(served.url, tmp_path, rate="200", num_requests=None, duration_s=0.1)
        code, report = await bench(chosen)

    (turn,) = report["points"][0]["targets"][0]["rounds"]
    expected = len(list(takewhile(lambda at_s: at_s < 0.1, poisson_arrivals(200.0, (0, 0, 0, 1)))))
    assert (code, report["points"][0]["rate"], turn["ok"]) == (0, 200.0, expected)
    assert turn["metrics"]["offered_per_s"] == pytest.approx(expected / 0.1)
    assert turn["wall_s"] >= 0.1


async def test_an_open_loop_may_be_told_how_many_to_send(tmp_path: Path) -> None:
    """Then they are what was offered until the last of them."""
    async with serving(scripted_runner(reply=REPLY)) as served:
        code, report = await bench(options(served.url, tmp_path, rate="200", num_requests=5))

    (turn,) = report["points"][0]["targets"][0]["rounds"]
    (last_s,) = islice(poisson_arrivals(200.0, (0, 0, 0, 1)), 4, 5)
    assert (code, turn["ok"]) == (0, 5)
    assert turn["metrics"]["offered_per_s"] == pytest.approx(5 / last_s)


async def test_a_trace_is_replayed(tmp_path: Path) -> None:
    """Its prompts, its lengths, its times."""
    trace = tmp_path / "trace.jsonl"
    trace.write_text(
        '{"timestamp": 5, "prompt": "one two", "max_tokens": 3}\n'
        '{"timestamp": 5.02, "prompt_tokens": 9, "max_tokens": 4}\n'
    )
    async with serving(scripted_runner(reply=REPLY)) as served:
        chosen = options(
            served.url, tmp_path, trace=trace, prompt_tokens=None, num_requests=None, num_warmup=0
        )
        code, report = await bench(chosen)

    (point,) = report["points"]
    (turn,) = point["targets"][0]["rounds"]
    assert (code, point["prompt_tokens"], turn["ok"], turn["output_tokens"]) == (0, "trace", 2, 7)
    assert turn["prompt_tokens"] == len("one two") + 9


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"key": "sk-wrong"}, "the key is wrong"),
        ({"key": KEY, "model": "nope"}, "there is no such endpoint or model"),
        ({"key": KEY, "path": "/v2/completions", "model": "test-model"}, "http 404"),
        ({"key": KEY, "body": '{"temperature": 9}'}, "http 400"),
        ({"key": KEY, "body": "{"}, "--body is not JSON"),
        ({"key": KEY, "pid": 2**22 + 1}, "no such process"),
        ({"key": KEY, "pid": os.getppid()}, "which started this command"),
    ],
)
async def test_what_cannot_be_measured_is_said_in_one_line(
    changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    """Before any load."""
    async with serving(scripted_runner(reply=REPLY)) as served:
        chosen = options(served.url, tmp_path, servers=[ServerOptions(served.url, **changes)])

        with pytest.raises(ConfigurationError, match=message) as raised:
            await bench(chosen)

    assert "\n" not in raised.value.message


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"concurrency": "1,x"}, "--concurrency is '1,x'"),
        ({"rate": "0"}, "more than 0"),
        ({"rate": "nan"}, "--rate is 'nan'"),
        ({"rate": "1,inf"}, "and finite"),
        ({"duration_s": inf}, "--duration is inf"),
        ({"timeout_s": inf}, "--timeout is inf"),
        ({"max_noise": inf}, "--max-noise is inf"),
        ({"temperature": inf}, "--temperature is inf"),
        ({"trace": Path("any")}, "leave out --prompt-tokens"),
        ({"vocabulary": "9"}, "--vocabulary"),
        ({"shared_prefix_tokens": 16}, "shared ones"),
        ({"slo": "fast"}, "is not a limit"),
    ],
)
def test_a_wrong_option_is_named(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    """Without asking any server."""
    with pytest.raises(ConfigurationError, match=message):
        run_bench(options("http://127.0.0.1:1", tmp_path, **changes), quiet)


@pytest.mark.parametrize("option", ["name", "key", "model", "path", "pid", "body"])
def test_what_is_said_of_a_second_server_needs_one(option: str) -> None:
    """It would be ignored."""
    arguments: dict[str, Any] = {f"compare_{option}": "7"}

    with pytest.raises(ConfigurationError, match=f"--compare-{option} is of a second server"):
        bench_command("http://127.0.0.1:1", **arguments)


async def test_a_server_that_answers_nothing_is_an_error(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The report is written all the same: its failures say why."""
    answers = iter([(0.0, HEAD + chunk(text(), DONE) + END)])  # for the first look, and no more
    async with scripted_stream(answers) as (_, port):
        server = ServerOptions(f"http://127.0.0.1:{port}", model="m")
        code, report = await bench(options("", tmp_path, servers=[server], num_warmup=0))

    (turn,) = report["points"][0]["targets"][0]["rounds"]
    assert (code, turn["errors"]) == (EXIT_UNANSWERED, {"connection_lost": 4})
    assert "no request was answered: A at c=1, 16 in, 8 out" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        ({"json_file": "none/r.json"}, "--json is none/r.json, and there is no folder none"),
        ({"json_file": "."}, "--json is ., a folder"),
        ({"html_file": Path("none/r.html")}, "there is no folder none"),
        ({"svg_dir": Path("file/charts")}, "/file is no folder"),
        ({"svg_dir": Path("file")}, "/file is no folder"),
    ],
)
def test_a_place_for_results_is_looked_at_first(
    outputs: dict[str, Any], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody listens at the address, which is not found out."""
    monkeypatch.chdir(tmp_path)
    Path("file").touch()

    with pytest.raises(ConfigurationError, match=message):
        run_bench(options("http://127.0.0.1:1", tmp_path, outputs=Outputs(**outputs)), quiet)


def test_one_result_that_cannot_be_written_loses_no_other(tmp_path: Path) -> None:
    """The folder was there when the run began."""
    html_file = tmp_path / "report.html"
    outputs = Outputs(json_file=str(tmp_path / "gone" / "report.json"), html_file=html_file)

    with pytest.raises(ConfigurationError, match=r"gone/report\.json cannot be written"):
        publish(made_report(made_point(made_round())), outputs)

    assert "<svg" in html_file.read_text()


async def test_nobody_listens(tmp_path: Path) -> None:
    """The command ends with 2 and one line."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", BENCH, "bench", "http://127.0.0.1:1",
        cwd=tmp_path, env={"PYTHONPATH": str(ROOT)},
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = await process.communicate()

    assert (process.returncode, out) == (2, b"")
    assert err.startswith(b"provider: http://127.0.0.1:1/v1/completions: connection refused")
    assert err.count(b"\n") == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_an_interrupt_prints_what_was_measured(number: int, tmp_path: Path) -> None:
    """The first answers are there, although the rest never came."""
    report = tmp_path / "report.json"
    async with serving(scripted_runner(reply=REPLY)) as served:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", BENCH, "bench", served.url, "--vocabulary", "0-256",
            "--requests", "100000", "--prompt-tokens", "4", "--output-tokens", "2",
            "--json", str(report),
            cwd=tmp_path, env={"PYTHONPATH": str(ROOT), "PROVIDER_API_KEY": KEY},
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        await served.wait_until(lambda: len(served.usage.lines) > 10)
        process.send_signal(number)
        out, _ = await process.communicate()

    assert (process.returncode, b"Interrupted: what was measured until then." in out) == (130, True)
    document = json.loads(report.read_text())
    (turn,) = document["points"][0]["targets"][0]["rounds"]
    assert (document["interrupted"], turn["whole"]) == (True, False)
    assert turn["ok"] > 0
