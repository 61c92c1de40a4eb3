"""`provider plan` from the command line: what it prints, writes and refuses."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import typer

from provider_core.cli import make_cli
from provider_core.cli.plan import plan
from provider_core.errors import ConfigurationError
from provider_core.planning.costs import StepCosts
from provider_core.planning.replica import ReplicaSpec
from provider_core.planning.report import NOT_MODELLED, SCHEMA
from tests.unit.planning.plan_rounds import simulated_bench

PAGE = (Path(__file__).parents[3] / "docs" / "scaling.md").read_text(encoding="utf-8")
COSTS = StepCosts(call_s=0.02, row_s=0.001, prompt_token_s=0.0002, request_s=0.005)
TRAFFIC = [
    "--rate",
    "2",
    "--prompt-tokens",
    "100±50",
    "--output-tokens",
    "50",
    "--duration-s",
    "60",
]
TERMS = ["--price-per-hour", "3", "--cold-start-s", "5", "--slots", "4"]


@pytest.fixture
def rates(tmp_path: Path) -> Path:
    """A report of a replica of known costs."""
    points = []
    for each in simulated_bench(ReplicaSpec(costs=COSTS, slots=16)):
        metrics = {
            "ttft_mean_ms": 1000 * each.ttft_s,
            "ttft_p50_ms": 1000 * each.ttft_p50_s,
            "itl_mean_ms": 1000 * each.itl_s,
        }
        turn = {
            "whole": True,
            "wall_s": each.wall_s,
            "ok": each.num_requests,
            "errors": {},
            "prompt_tokens": each.prompt_tokens * each.num_requests,
            "cached_tokens": 0,
            "output_tokens": each.output_tokens * each.num_requests,
            "metrics": metrics,
        }
        target = {"label": "A", "rounds": [turn]}
        points.append({"concurrency": each.concurrency, "rate": None, "targets": [target]})
    path = tmp_path / "rates.json"
    path.write_text(
        json.dumps(
            {
                "schema": "provider-bench/1",
                "targets": [{"label": "A"}],
                "quiet": True,
                "points": points,
            }
        )
    )
    return path


def run(rates: Path, *arguments: object) -> int:
    """The exit code of `provider plan`."""
    with pytest.raises(SystemExit) as ended:
        make_cli()(["plan", "--rates", str(rates), *map(str, arguments)])
    return int(ended.value.code or 0)


def refusal(rates: Path, *arguments: object) -> str:
    """The one line of a wrong option."""
    with pytest.raises(ConfigurationError) as refused:
        make_cli()(["plan", "--rates", str(rates), *map(str, arguments)], standalone_mode=False)
    return refused.value.message


def planned(rates: Path, *arguments: object) -> dict[str, Any]:
    """The JSON of a plan."""
    path = rates.with_name("plan.json")
    run(rates, *arguments, "--json", path)
    found: dict[str, Any] = json.loads(path.read_bytes())
    return found


def test_it_says_what_a_traffic_needs_and_costs(
    rates: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """For people, with what the figures rest on and what they leave out."""
    assert run(rates, *TRAFFIC, *TERMS) == 0

    said = capsys.readouterr().out
    for name in ("replicas, peak", "TTFT p95", "break-even per million output tokens"):
        assert name in said
    assert "A call lasts" in said
    assert all(each in said for each in NOT_MODELLED)


def test_the_json_has_all_figures(rates: Path) -> None:
    """And they agree with each other."""
    found = planned(rates, *TRAFFIC, *TERMS)

    assert found["schema"] == SCHEMA
    assert found["costs"]["call_s"] == pytest.approx(COSTS.call_s, rel=0.1)
    assert len(found["fit"]) == 6
    forecast = found["forecast"]
    assert forecast["cost"] == pytest.approx(3 * forecast["replica_hours"])
    tokens = forecast["output_tokens"]
    assert forecast["cost_per_million_output_tokens"] * tokens == pytest.approx(
        1e6 * forecast["cost"]
    )
    sold = forecast["break_even_output_price"] * tokens
    sold += forecast["break_even_prompt_price"] * forecast["prompt_tokens"]
    assert sold == pytest.approx(1e6 * forecast["cost"])
    assert forecast["cold_share"] > 0
    assert found["tried"] == [forecast]


def test_the_json_can_be_all_of_standard_output(
    rates: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """For the next program; people find the tables on the other stream."""
    assert run(rates, *TRAFFIC, *TERMS, "--json", "-") == 0

    said = capsys.readouterr()
    assert json.loads(said.out)["schema"] == SCHEMA
    assert "replicas, peak" in said.err


def test_replicas_are_found_that_keep_a_latency(rates: Path) -> None:
    """The fewest that are always ready: with one less it is not kept."""
    found = planned(rates, *TRAFFIC, *TERMS, "--ttft-p95", "0.5", "--max-replicas", "8")

    least = found["forecast"]["scaling"]["min_replicas"]
    p95 = {each["scaling"]["min_replicas"]: each["ttft"]["p95_s"] for each in found["tried"]}
    assert found["is_met"]
    assert least > 0
    assert p95[least] <= 0.5 < p95[least - 1]


def test_a_latency_that_cannot_be_kept_is_told_apart(
    rates: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the exit code and in words."""
    short = [*TRAFFIC, *TERMS, "--ttft-p95", "0.001", "--max-replicas", "2"]

    assert run(rates, *short) == 1
    assert "not even 2 replicas keep a TTFT p95 of 0.001 s" in capsys.readouterr().out


def test_a_platform_cuts_what_takes_too_long(
    rates: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A start of five minutes is longer than its deadline."""
    slow = [*TRAFFIC, "--price-per-hour", "3", "--cold-start-s", "400", "--platform", "cloud-run"]

    assert run(rates, *slow) == 0
    assert "the platform would cut 1e+02 %" in capsys.readouterr().out


def test_the_page_loads_nothing(rates: Path, tmp_path: Path) -> None:
    """It has the table, the warnings and the charts."""
    path = tmp_path / "plan.html"
    run(rates, *TRAFFIC, *TERMS, "--ttft-p95", "0.5", "--html", path)

    html = path.read_text(encoding="utf-8")
    assert html.count("<svg") == 3
    assert "break-even" in html
    assert "http" not in html.replace("http://www.w3.org/2000/svg", "").replace("HTTP", "")


TRACE_LINE = '{"prompt_tokens": 10, "max_tokens": 5}\n'


def test_a_trace_without_times_needs_a_rate(rates: Path, tmp_path: Path) -> None:
    """With one its requests come in turn."""
    trace = tmp_path / "trace.jsonl"
    trace.write_text(TRACE_LINE)

    assert refusal(rates, "--trace", trace, *TERMS).endswith("has no times; give a --rate")
    found = planned(rates, "--trace", trace, "--rate", 2, "--duration-s", 60, *TERMS)
    requests = found["forecast"]["num_requests"]
    assert requests > 80
    assert found["forecast"]["output_tokens"] == 5 * requests


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "nobody asks: give a --trace or a --rate"),
        (["--rate", "1"], "--rate needs --prompt-tokens and --output-tokens, or a --trace"),
        (["--rate", "0"], "--rate must be more than 0"),
        (["--rate", "nan"], "--rate is nan, not a finite number"),
        ([*TRAFFIC, "--target-ongoing", "0"], "--target-ongoing must be more than 0"),
        ([*TRAFFIC, "--min-replicas", "9", "--max-replicas", "2"], "--min-replicas is more than"),
        ([*TRAFFIC, "--trace", "t"], "the prompts are those of --trace"),
        ([*TRAFFIC, "--platform", "nowhere"], "there is no profile of platform 'nowhere'"),
        ([*TRAFFIC, "--json", "/no/folder/x"], "--json is /no/folder/x, and there is no folder"),
    ],
)
def test_wrong_options_are_refused(rates: Path, arguments: list[str], message: str) -> None:
    """In one line that names them."""
    assert message in refusal(rates, *arguments, *TERMS)


def test_the_missing_extra_is_named(rates: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the command that installs it."""
    names = [name for name in sys.modules if name.startswith("provider_core.planning")]
    for name in ["provider_core.cli.plan_session", *names]:
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, "simpy", None)

    said = refusal(rates, *TRAFFIC, *TERMS)

    assert said == "provider plan needs the package simpy: pip install 'provider-core[plan]'"


def test_every_option_has_a_row() -> None:
    """And every row is of an option."""
    app = typer.Typer(add_completion=False)
    app.command()(plan)
    options = {parameter.opts[0] for parameter in typer.main.get_command(app).params}
    rows = [line.split("|")[1] for line in PAGE.splitlines() if line.startswith("| `--")]

    assert {name for row in rows for name in row.replace("`", "").split()} == options
    assert SCHEMA in PAGE
