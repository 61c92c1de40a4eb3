"""docs/log-schema.md is held to the code: every event, every field, its type, and an example."""

import ast
import json
import re
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from provider_core.billing import ProcessFacts, content_sha256
from provider_core.billing.adjustments import build_adjustment
from provider_core.billing.settlement import Ledger
from provider_core.interfaces import RunnerInfo
from provider_core.observability import log_access
from provider_core.prices import Prices
from provider_core.types import ModelSpec, Principal, Usage
from tests.unit.billing.journals import Log, boot
from tests.unit.observability.conftest import ReadLines

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs/log-schema.md").read_text(encoding="utf-8")
LOG_METHODS = {"debug", "info", "warning", "error", "exception", "critical", "log"}
EVENT_NAME = re.compile(r"[a-z]+\.[a-z_]+")
TYPES = {
    str: {"string"},
    bool: {"boolean"},
    int: {"integer", "number"},
    float: {"number"},
    dict: {"object"},
}


class Stopwatch:
    """A clock for the example on the page: received, then settled."""

    wall_s = 1_795_214_401.482913 - 1.203552
    mono_s = 1000.0

    def time(self) -> float:
        """Unix seconds."""
        return self.wall_s

    def monotonic(self) -> float:
        """Seconds that only grow."""
        return self.mono_s


class Lines(list[dict[str, Any]]):
    """A sink that parses."""

    def emit(self, line: bytes) -> None:
        """Take one line."""
        self.append(json.loads(line))


def section(title: str) -> str:
    """The text below a heading."""
    return PAGE.split(f"\n## {title}\n")[1].split("\n## ")[0]


def table(text: str, head: str) -> dict[str, list[str]]:
    """Rows of the table whose first column is called `head`, by their first cell."""
    rows = text.split(f"| {head} |", 1)[1].split("\n\n", maxsplit=1)[0].splitlines()[2:]
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
    return {first.strip("`"): rest for first, *rest in cells}


def settle(**outcome: Any) -> dict[str, Any]:
    """The event of the page's example with another ending."""
    clock, lines = Stopwatch(), Lines()
    process = ProcessFacts(
        boot_id="01JD5Z00000000000000000000",
        service_version="0.1.0",
        instance_id="host-1",
        platform="runpod",
        region="us-east",
        country="US",
    )
    prices = Prices(
        prompt=Decimal("0.00000005"),
        completion=Decimal("0.00000008"),
        input_cache_read=Decimal("0.000000025"),
        version="2026-11-01.3",
    )
    settlement = Ledger(lines, clock, process).open(
        generation_id="gen-01JD5Z7Q3M8W9X0Y1Z2A3B4C5D",
        request_id="req-01JD5Z7Q2ZAAAAAAAAAAAAAAAA",
        principal=Principal(api_key_id="key_9f31c0"),
        model=ModelSpec(id="acme/llama-3.1-8b", source="s", prices=prices),
        runner_info=RunnerInfo(
            backend="onnxruntime",
            backend_version="1.23.0",
            device="cpu",
            max_num_seqs=8,
            max_model_len=4096,
            vocab_size=32000,
            precision="int4",
        ),
        endpoint="chat.completions",
        stream=True,
        received_wall_s=clock.wall_s,
        received_mono_s=clock.mono_s,
        client_request_id=outcome.pop("client_request_id", None),
    )
    if outcome["status"] == "ok":
        settlement.mark_started(clock.mono_s + 0.003112)
        settlement.mark_first_token(clock.mono_s + 0.088401)
    clock.mono_s += 1.203552
    settlement.settle(**outcome)
    [event] = lines
    return event


USED = Usage(prompt_tokens=812, cached_tokens=640, completion_tokens=120, generated_tokens=120)
EVENTS = [
    {"status": "ok", "finish_reason": "stop", "usage": USED},
    {"status": "cancelled", "usage": Usage(), "cancel_stage": "queue", "client_request_id": "c"},
    {"status": "error", "usage": USED, "error_code": "backend_error", "native_finish_reason": "x"},
]


def check_fields(line: dict[str, Any], rows: dict[str, list[str]]) -> None:
    """A line has exactly the documented fields, of the documented types."""
    assert list(rows) == sorted(line, key=list(rows).index)
    for name, value in line.items():
        kind, null, _ = rows[name]
        if value is None:
            assert null == "yes", name
        else:
            assert kind in TYPES[type(value)], name


@pytest.mark.parametrize("outcome", EVENTS, ids=lambda outcome: str(outcome["status"]))
def test_usage_final_is_documented(outcome: dict[str, Any]) -> None:
    """Every field is on the page with its type, and nothing else is."""
    check_fields(settle(**outcome), table(section("usage.final"), "field"))


def test_optional_fields_are_documented() -> None:
    """Those that appear only at need stand in the second table."""
    second = section("usage.final").split("Only on some lines:")[1]
    assert list(table(second, "field")) == [
        "truncated",
        "session_id",
        "response_cache_source_id",
        "clock_adjusted",
    ]


def test_the_example_is_what_the_code_writes() -> None:
    """To the last digit and in this order, its hash included."""
    found = re.search(r"```json\n(.*)\n```", PAGE)
    assert found is not None
    event = settle(**EVENTS[0])
    assert found[1] == json.dumps(event, separators=(",", ":"))
    assert content_sha256(event) == event["content_sha256"]


@pytest.mark.parametrize("has_usage", [True, False])
def test_request_access_is_documented(read_lines: ReadLines, has_usage: bool) -> None:  # noqa: FBT001
    """Every field is on the page with its type, and nothing else is."""
    log_access(
        method="POST",
        path="/v1/chat/completions",
        http_status=200 if has_usage else 401,
        request_id="req-1",
        latency_ms=1.5,
        num_sent_bytes=1,
        usage_event=settle(**EVENTS[0]) if has_usage else None,
        api_key_id="key_1" if has_usage else None,
        error_code=None if has_usage else "invalid_api_key",
    )
    [line] = read_lines()
    check_fields(line, table(section("request.access"), "field"))


def test_usage_adjustment_is_documented() -> None:
    """Every field is on the page with its type, and nothing else is."""
    event = build_adjustment(
        settle(**EVENTS[0]),
        cost_delta=Decimal(-1),
        reason="delivery_unknown",
        rule="R9",
        boot_id="01JD5Z00000000000000000000",
        seq=2,
        wall_s=Stopwatch.wall_s,
        service_version="0.1.0",
    )
    check_fields(event, table(section("usage.adjustment"), "field"))


def test_usage_heartbeat_is_documented(tmp_path: Path) -> None:
    """The last one of a boot has every field."""
    log = Log()
    with boot(tmp_path, log):
        pass
    (event,) = log.events("usage.heartbeat")
    check_fields(event, table(section("usage.heartbeat"), "field"))


def logged_events() -> Iterator[str]:
    """Every event name that the core or a handler passes to a logger or puts in a line."""
    for path in (*ROOT.glob("provider_core/**/*.py"), *ROOT.glob("handlers/**/*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            match node:
                case ast.Call(func=ast.Attribute(attr=method), args=arguments):
                    names = arguments[:2] if method in LOG_METHODS else []
                case ast.Call(func=ast.Name(id="_logged"), args=arguments):  # a reload's failures
                    names = arguments
                case ast.Dict(keys=[ast.Constant(value="event"), *_], values=[first, *_]):
                    names = [first]
                case _:
                    continue
            for name in names:
                match name:
                    case ast.Constant(value=str(text)) if EVENT_NAME.fullmatch(text):
                        yield text


def test_every_event_is_documented() -> None:
    """Whoever adds an event adds a row, and a row without an event goes."""
    rows = table(section("All other lines"), "event")
    assert list(rows) == sorted(rows)
    own_sections = {
        "request.access",
        "usage.adjustment",
        "usage.final",
        "usage.heartbeat",
        "usage.open",
    }
    assert set(logged_events()) - own_sections == set(rows)
