"""One settlement per generation, and the event it writes."""

import hashlib
import json
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from decimal import Decimal
from typing import Any, cast

import pytest

from provider_core.billing.settlement import Ledger
from provider_core.prices import Prices, PriceTier, PriceWindow
from provider_core.types import ModelSpec, Usage, UsageRecord
from tests.unit.billing.conftest import GENERATION_ID, HandClock, ListSink, Open

OTHER_ID = "gen-01JD5Z7Q3M8W9X0Y1Z2A3B4C5E"
USED = Usage(prompt_tokens=812, cached_tokens=640, completion_tokens=120, generated_tokens=120)
EXAMPLE = json.loads("""
{"event":"usage.final","schema":"llm-usage/1.0","timestamp":"2026-11-20T22:40:01.482913Z",
"event_id":"gen-01JD5Z7Q3M8W9X0Y1Z2A3B4C5D:final","generation_id":"gen-01JD5Z7Q3M8W9X0Y1Z2A3B4C5D",
"api_key_id":"key_9f31c0","endpoint":"chat.completions","operation":"chat","stream":true,"n":1,
"model":"acme/llama-3.1-8b","backend":"onnxruntime","backend_version":"1.23.0","region":"us-east",
"platform":"runpod","queue_ms":3.112,"ttft_ms":88.401,"latency_ms":1203.552,"prompt_tokens":812,
"cached_tokens":640,"cache_write_tokens":0,"completion_tokens":120,"reasoning_tokens":0,
"total_tokens":932,"generated_tokens":120,"status":"ok","http_status":200,"finish_reason":"stop",
"cancelled":false,"billable":true,"billing_rule":"R1","currency":"USD",
"price_version":"2026-11-01.3","price_tier":0,"cost":"0.0000342","list_cost":"0.0000342",
"delivery":"sent","recovered":false,"emit_attempt":1}
""")


def test_the_specification_s_example(
    open_settlement: Open, clock: HandClock, sink: ListSink
) -> None:
    """The example of the published schema comes out number by number."""
    clock.wall_s = 1_795_214_401.482913 - 1.203552
    settlement = open_settlement()
    settlement.mark_started(clock.mono_s + 0.003112)
    settlement.mark_first_token(clock.mono_s + 0.088401)
    clock.advance(1.203552)
    record = settlement.settle(status="ok", usage=USED, finish_reason="stop")
    [event] = sink.events
    assert {name: event[name] for name in EXAMPLE} == EXAMPLE
    assert event["prices"] == {
        "prompt": "0.00000005",
        "completion": "0.00000008",
        "input_cache_read": "0.000000025",
        "request": "0",
        "image": "0",
    }
    assert record.cost == Decimal("0.0000342")
    assert record.event == event


def test_the_first_outcome_wins(open_settlement: Open, sink: ListSink) -> None:
    """A cancellation after the end changes nothing and writes nothing."""
    settlement = open_settlement()
    assert settlement.record is None
    first = settlement.settle(status="ok", usage=USED, finish_reason="stop")
    second = settlement.settle(status="cancelled", usage=Usage(), http_status=499)
    assert second is first is settlement.record
    assert [event["status"] for event in sink.events] == ["ok"]


def test_racing_threads_settle_once(ledger: Ledger, open_settlement: Open, sink: ListSink) -> None:
    """Of many that settle at once one decides, and all get its record."""
    barrier = threading.Barrier(8)
    settlement = open_settlement()
    records: list[UsageRecord] = []

    def settle(number: int) -> None:
        barrier.wait()
        records.append(
            settlement.settle(
                status="ok", usage=Usage(completion_tokens=number), finish_reason="stop"
            )
        )

    threads = [threading.Thread(target=settle, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(records) == 8
    assert all(record is settlement.record for record in records)
    assert len(sink.lines) == 1
    assert ledger.num_open == 0


def test_b12_finish_and_cancel_race_ten_thousand_times(
    ledger: Ledger, open_settlement: Open
) -> None:
    """I1: whichever is first decides, both get the same record, and nothing is billed twice."""
    settlements = [open_settlement() for _ in range(10_000)]
    start = threading.Barrier(2)

    def run(**outcome: Any) -> list[UsageRecord]:
        start.wait(20)
        return [settlement.settle(**outcome) for settlement in settlements]

    with ThreadPoolExecutor(2) as pool:
        finished = pool.submit(run, status="ok", usage=USED, finish_reason="stop")
        cancelled = pool.submit(run, status="cancelled", usage=USED)
        pairs = list(zip(finished.result(), cancelled.result(), strict=True))
    assert all(one is other for one, other in pairs)
    assert [ledger.totals()[name] for name in ("finals", "last_seq", "open_generations")] == [
        10_000,
        10_000,
        0,
    ]


def test_seq_has_no_gap_and_follows_the_lines(
    ledger: Ledger, open_settlement: Open, sink: ListSink
) -> None:
    """Generations are numbered as they end, from 1."""
    settlements = [open_settlement() for _ in range(5)]
    assert ledger.num_open == 5
    for settlement in reversed(settlements):
        settlement.settle(status="ok", usage=USED, finish_reason="stop")
    assert [event["seq"] for event in sink.events] == [1, 2, 3, 4, 5]
    assert ledger.num_open == 0


def test_observers_hear_of_a_record_once_and_after_its_line(
    sink: ListSink, ledger: Ledger, clock: HandClock, open_settlement: Open
) -> None:
    """What `on_settled` is told has already been written."""
    heard: list[tuple[str, int]] = []
    ledger._on_settled = lambda record: heard.append((record.generation_id, len(sink.lines)))
    settlement = open_settlement()
    settlement.settle(status="ok", usage=USED, finish_reason="stop")
    settlement.settle(status="ok", usage=USED, finish_reason="stop")
    assert heard == [(GENERATION_ID, 1)]


def test_the_price_at_admission_is_billed(open_settlement: Open) -> None:
    """The settlement keeps its own snapshot and says which."""
    old = ModelSpec(id="m", source="s", prices=Prices(prompt=Decimal("0.001"), version="old"))
    record = open_settlement(model=old).settle(status="ok", usage=USED, finish_reason="stop")
    assert record.event["price_version"] == "old"
    assert record.event["cost"] == "0.812"


TIERED = Prices(
    prompt=Decimal("0.001"),
    tiers=(
        PriceTier(min_prompt_tokens=812, prices=Prices(prompt=Decimal("0.002"))),
        PriceTier(min_prompt_tokens=813, prices=Prices(prompt=Decimal("0.003"))),
    ),
)


@pytest.mark.parametrize(
    ("prompt_tokens", "tier", "price", "cost"),
    [(811, 0, "0.001", "0.811"), (812, 1, "0.002", "1.624"), (813, 2, "0.003", "2.439")],
)
def test_a_long_prompt_is_billed_by_its_tier(
    open_settlement: Open, prompt_tokens: int, tier: int, price: str, cost: str
) -> None:
    """The tier begins with its own number of tokens, and the line can be recomputed alone."""
    model = ModelSpec(id="m", source="s", prices=TIERED)
    used = Usage(prompt_tokens=prompt_tokens, completion_tokens=1)
    record = open_settlement(model=model).settle(status="ok", usage=used, finish_reason="stop")

    assert record.event["price_tier"] == tier
    assert cast(dict[str, str], record.event["prices"])["prompt"] == price
    assert record.event["cost"] == cost


@pytest.mark.parametrize(
    ("clock_time", "cost"), [("21:59", "0.812"), ("22:00", "0.406"), ("05:59", "0.406")]
)
def test_the_time_of_receipt_decides_the_price(
    open_settlement: Open, clock_time: str, cost: str
) -> None:
    """A window spans midnight; how long the answer takes changes nothing."""
    night = PriceWindow(utc_start=2200, utc_end=600, prices=Prices(prompt=Decimal("0.0005")))
    prices = Prices(prompt=Decimal("0.001"), windows=(night,))
    received = datetime.fromisoformat(f"2026-11-20T{clock_time}:59Z").timestamp()
    record = open_settlement(
        model=ModelSpec(id="m", source="s", prices=prices), received_wall_s=received
    ).settle(status="ok", usage=USED, finish_reason="stop")

    assert record.event["cost"] == cost


def test_an_answer_from_the_cache_is_not_billed(open_settlement: Open) -> None:
    """R12: an event all the same, with nothing counted and the generation it repeats."""
    model = ModelSpec(id="m", source="s", prices=Prices(request=Decimal(1)))
    record = open_settlement(model=model).settle(
        status="ok", usage=Usage(), finish_reason="stop", cache_source_id=OTHER_ID
    )

    assert (record.event["billing_rule"], record.event["billable"]) == ("R12", False)
    assert (record.event["cost"], record.event["total_tokens"]) == ("0", 0)
    assert record.event["response_cache_source_id"] == OTHER_ID


@pytest.mark.parametrize(
    ("facts", "outcome", "rule", "cost", "completion", "generated"),
    [
        ({}, {"status": "ok", "finish_reason": "stop"}, "R1", "0.0000502", 120, 130),
        ({}, {"status": "ok", "finish_reason": "length"}, "R1", "0.0000502", 120, 130),
        ({}, {"status": "ok", "finish_reason": "tool_calls"}, "R1", "0.0000502", 120, 130),
        ({}, {"status": "ok", "finish_reason": "content_filter"}, "R2", "0.0000502", 120, 130),
        ({}, {"status": "cancelled"}, "R3", "0.0000502", 120, 130),
        ({}, {"status": "cancelled", "tokens": 0}, "R4", "0", 0, 130),
        ({"stream": False}, {"status": "cancelled"}, "R5", "0", 0, 130),
        ({}, {"status": "error", "error_code": "backend_error"}, "R6", "0", 120, 130),
        ({}, {"status": "error", "finish_reason": "error"}, "R6", "0", 120, 130),
        ({}, {"status": "ok", "finish_reason": "error"}, "R6", "0", 120, 130),
        ({}, {"status": "ok", "finish_reason": None}, "R6", "0", 120, 130),
        ({}, {"status": "error", "error_code": "draining"}, "R7", "0", 120, 130),
        ({}, {"status": "interrupted"}, "R8", "0", 120, 130),
        ({}, {"status": "ok", "finish_reason": "stop", "tokens": 0}, "R13", "0.0000406", 0, 130),
        (
            {"model": ModelSpec(id="free", source="s")},
            {"status": "ok", "finish_reason": "stop"},
            "R18",
            "0",
            120,
            130,
        ),
    ],
)
def test_billing_rules(
    open_settlement: Open,
    facts: dict[str, Any],
    outcome: dict[str, Any],
    rule: str,
    cost: str,
    completion: int,
    generated: int,
) -> None:
    """Every row of the published policy that can happen by now."""
    tokens = outcome.get("tokens", 120)
    usage = Usage(prompt_tokens=812, completion_tokens=tokens, generated_tokens=130)
    ending = {name: value for name, value in outcome.items() if name != "tokens"}
    event = open_settlement(**facts).settle(usage=usage, **ending).event
    assert event["billing_rule"] == rule
    assert event["billable"] is (rule in {"R1", "R2", "R3", "R13", "R18"})
    assert event["cost"] == cost
    assert (event["completion_tokens"], event["generated_tokens"]) == (completion, generated)
    assert event["total_tokens"] == 812 + completion


def test_list_cost_shows_what_was_waived(open_settlement: Open) -> None:
    """A failure of ours costs nothing and says what it would have cost."""
    event = open_settlement().settle(status="error", usage=USED, error_code="backend_error").event
    assert (event["cost"], event["list_cost"]) == ("0", "0.0000342")


def test_a_cancelled_generation_has_no_finish_reason(open_settlement: Open) -> None:
    """It says that and where it was cancelled instead."""
    event = (
        open_settlement()
        .settle(status="cancelled", usage=USED, finish_reason="stop", cancel_stage="decode")
        .event
    )
    assert event["finish_reason"] is None
    assert event["cancelled"] is True
    assert event["cancel_stage"] == "decode"
    assert event["delivery"] == "failed"


def test_marks_count_once_and_in_order(open_settlement: Open, clock: HandClock) -> None:
    """Durations come from the monotonic clock, at the first call of each mark."""
    received = clock.monotonic()
    clock.advance(0.5)
    settlement = open_settlement(received_wall_s=clock.wall_s - 0.5, received_mono_s=received)
    clock.advance(0.25)
    settlement.mark_started()
    clock.advance(0.125)
    settlement.mark_first_token()
    clock.advance(1)
    settlement.mark_started()
    settlement.mark_first_token()
    event = settlement.settle(status="ok", usage=USED, finish_reason="stop").event
    durations = [event[name] for name in ("queue_ms", "ttft_ms", "generation_ms", "latency_ms")]
    assert durations == [250, 875, 1000, 1875]
    moments = [
        event[name]
        for name in ("received_at", "admitted_at", "started_at", "first_token_at", "finished_at")
    ]
    assert moments == sorted(moments, key=str)
    assert event["timestamp"] == event["finished_at"]


def test_what_never_happened_is_null(open_settlement: Open, clock: HandClock) -> None:
    """A request cancelled in the queue waited there all its life."""
    settlement = open_settlement()
    clock.advance(2)
    event = settlement.settle(status="cancelled", usage=Usage(), cancel_stage="queue").event
    assert event["started_at"] is event["first_token_at"] is None
    assert event["ttft_ms"] is event["generation_ms"] is None
    assert event["queue_ms"] == event["latency_ms"] == 2000


def test_an_unknown_start_was_at_the_first_token_at_the_latest(
    open_settlement: Open, clock: HandClock
) -> None:
    """An engine that does not say when it began is not charged with the whole generation."""
    settlement = open_settlement()
    clock.advance(0.5)
    settlement.mark_first_token()
    clock.advance(2)
    event = settlement.settle(status="ok", usage=USED, finish_reason="stop").event
    assert (event["started_at"], event["queue_ms"]) == (None, 500)


def test_b20_a_clock_set_forward_and_back_harms_neither(
    open_settlement: Open, clock: HandClock, sink: ListSink
) -> None:
    """An hour too far, the next lines wait at its time until the clock has caught up."""
    first = open_settlement()
    clock.wall_s += 3600
    clock.advance(1)
    first.settle(status="ok", usage=USED, finish_reason="stop")
    for _ in range(2):
        settlement = open_settlement()
        clock.advance(2)
        settlement.settle(status="ok", usage=USED, finish_reason="stop")
        clock.wall_s -= 1800
    times = [event["timestamp"] for event in sink.events]
    assert times == sorted(times)
    assert [event["latency_ms"] for event in sink.events] == [1000, 2000, 2000]
    assert [event.get("clock_adjusted", False) for event in sink.events] == [False, False, True]


def test_b20_a_clock_set_back_harms_neither_durations_nor_order(
    open_settlement: Open, clock: HandClock, sink: ListSink
) -> None:
    """Durations stay right, timestamps never go back within a boot, and the line says so."""
    open_settlement().settle(status="ok", usage=USED, finish_reason="stop")
    clock.wall_s -= 3600
    settlement = open_settlement()
    clock.wall_s -= 3600
    clock.advance(1)
    settlement.settle(status="ok", usage=USED, finish_reason="stop")
    first, second = sink.events
    assert second["latency_ms"] == 1000
    assert second["timestamp"] == first["timestamp"]
    assert second["clock_adjusted"] is True
    assert "clock_adjusted" not in first


@pytest.mark.parametrize(
    "usage",
    [
        Usage(prompt_tokens=-1, completion_tokens=-1, generated_tokens=-1),
        Usage(prompt_tokens=5, cached_tokens=9, completion_tokens=3, reasoning_tokens=7),
        Usage(prompt_tokens=2**70, completion_tokens=2**70),
    ],
)
def test_impossible_counts_still_make_a_consistent_bill(
    open_settlement: Open, usage: Usage
) -> None:
    """A bug in counting never yields a negative cost, a lost bill or an unreadable number."""
    record = open_settlement().settle(status="ok", usage=usage, finish_reason="stop")
    counted = record.usage
    assert 0 <= counted.cached_tokens <= counted.prompt_tokens < 2**53
    assert 0 <= counted.reasoning_tokens <= counted.completion_tokens < 2**53
    assert counted.completion_tokens <= counted.generated_tokens < 2**53
    assert record.cost >= 0


def test_content_hash_is_over_the_canonical_content(open_settlement: Open, sink: ListSink) -> None:
    """Anybody can recompute it from the line with a plain JSON library."""
    open_settlement(user_id="Zoë").settle(status="ok", usage=USED, finish_reason="stop")
    [event] = sink.events
    claimed = event.pop("content_sha256")
    for name in (
        "delivery", "durable", "recovered", "emit_attempt", "emitted_at", "service_version",
    ):  # fmt: skip
        del event[name]
    canonical = json.dumps(event, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert claimed == hashlib.sha256(canonical.encode()).hexdigest()
    assert re.fullmatch("[0-9a-f]{64}", claimed)


def test_the_event_of_a_record_cannot_be_changed(open_settlement: Open) -> None:
    """A plugin that is told of a record cannot alter what the next one sees."""
    record = open_settlement().settle(status="ok", usage=USED, finish_reason="stop")
    event: Any = record.event
    with pytest.raises(TypeError):
        event["cost"] = "0"
