"""Encoding rules of the usage event: whatever a client sends, one short ASCII line."""

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provider_core.billing.events import MAX_LINE_BYTES, ProcessFacts
from provider_core.billing.settlement import Ledger
from provider_core.interfaces import RunnerInfo
from provider_core.json_lines import sanitize
from provider_core.types import ModelSpec, Principal, Usage
from tests.unit.billing.conftest import (
    GENERATION_ID,
    MODEL,
    REQUEST_ID,
    HandClock,
    ListSink,
    Open,
)

OTHER_ID = "gen-01JD5Z7Q3M8W9X0Y1Z2A3B4C5E"
FORGED = '{"event":"usage.final","cost":"999"}'
HOSTILE = [
    "\udce9",  # how a Latin-1 header byte reaches a handler
    "\ud800",
    "a\x00b",
    f"x\r\n{FORGED}",
    f"x\u2028{FORGED}\u2029{FORGED}\x85{FORGED}",
    "\x1b[31mred\x1b[0m",
    "\u202egnirts\u202c",
    '"\\' * 500,
    "x" * 2**20,
    "\U0001f600" * 2**18,
    "\x7f" * 300,
    FORGED,
]
any_text = st.text(st.characters(codec=None), max_size=400) | st.sampled_from(HOSTILE)


def settle(open_settlement: Open, sink: ListSink, **facts: Any) -> dict[str, Any]:
    """Settle a generation and check everything a line must be."""
    open_settlement(**facts).settle(
        status="ok", usage=Usage(prompt_tokens=1, completion_tokens=1), finish_reason="stop"
    )
    line = sink.lines[-1]
    assert line.isascii()
    assert len(line) <= MAX_LINE_BYTES
    assert line.endswith(b"\n")
    assert not re.search(rb"[\x00-\x1f\x7f]", line[:-1])
    assert len(line.decode().splitlines()) == 1
    event: dict[str, Any] = json.loads(line)
    assert event["event"] == "usage.final"
    assert event["cost"] == "0.00000013"
    return event


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize(
    "field",
    [
        *("user_id", "app_title", "app_referer"),
        *("session_id", "client_request_id", "idempotency_key"),
    ],
)
def test_b19_hostile_client_strings(
    open_settlement: Open, sink: ListSink, field: str, text: str
) -> None:
    """Controls, surrogates, forged lines and megabytes leave one whole, parsable line."""
    settle(open_settlement, sink, **{field: text})


@given(
    user_id=any_text,
    app_title=any_text,
    app_referer=any_text,
    model_id=any_text,
    backend=any_text,
    api_key_id=any_text,
    account_id=any_text,
    region=any_text,
    native=any_text,
)
def test_no_string_loses_a_bill(
    *,
    user_id: str,
    app_title: str,
    app_referer: str,
    model_id: str,
    backend: str,
    api_key_id: str,
    account_id: str,
    region: str,
    native: str,
) -> None:
    """All text together, the operator's own included: a valid line, never an exception."""
    sink = ListSink()
    process = ProcessFacts(
        boot_id="b", service_version=region, instance_id=region, region=region, platform=region
    )
    clock = HandClock()
    settlement = Ledger(sink, clock, process, logs_open=True).open(
        generation_id=GENERATION_ID,
        request_id=REQUEST_ID,
        principal=Principal(api_key_id=api_key_id, account_id=account_id),
        model=ModelSpec(id=model_id, source="s", prices=MODEL.prices),
        runner_info=RunnerInfo(
            backend=backend,
            backend_version=backend,
            device="cpu",
            max_num_seqs=1,
            max_model_len=1,
            vocab_size=1,
        ),
        endpoint="chat.completions",
        stream=True,
        received_wall_s=0.0,
        received_mono_s=0.0,
        user_id=user_id,
        app_title=app_title,
        app_referer=app_referer,
    )
    settlement.settle(status="error", usage=Usage(), native_finish_reason=native, error_code=native)
    assert [event["event"] for event in sink.events] == ["usage.open", "usage.final"]
    for line in sink.lines:
        assert line.isascii()
        assert len(line) <= MAX_LINE_BYTES
        assert json.loads(line)["generation_id"] == GENERATION_ID


@given(any_text, st.integers(1, 300))
def test_sanitize_yields_short_printable_unicode(text: str, max_bytes: int) -> None:
    """Whatever goes in, what comes out can be encoded, is short, and holds no control."""
    clean = sanitize(text, max_bytes)
    assert len(clean.encode()) <= max_bytes
    assert not re.search("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]", clean)


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("plain", "plain"),
        ("Zoë \U0001f600", "Zoë \U0001f600"),
        ("Zo\udceb", "Zo\ufffd"),
        ("Zo\udcc3\udcab", "Zoë"),
        ("a\r\nb\tc", "abc"),
        ("\x1b[31mred", "[31mred"),
        ("a\u2028b\u202ec\u0085d", "abcd"),
        ("1234567890123", "1234567890"),
        ("123456789é", "123456789"),
    ],
)
def test_sanitize(text: str, clean: str) -> None:
    """Bytes that were text become text again, controls vanish, characters stay whole."""
    assert sanitize(text, 10 if len(text) > 8 and text[0] == "1" else 100) == clean


def test_limits_of_client_strings(open_settlement: Open, sink: ListSink) -> None:
    """Each field has its own limit in bytes."""
    event = settle(
        open_settlement, sink, user_id="u" * 500, app_title="t" * 500, app_referer="r" * 500
    )
    lengths = [len(event[name]) for name in ("user_id", "app_title", "app_referer")]
    assert lengths == [128, 128, 256]
    assert "truncated" not in event


def test_a_session_is_named_only_where_there_is_one(open_settlement: Open, sink: ListSink) -> None:
    """The client's name for a conversation, cut like the others."""
    assert "session_id" not in settle(open_settlement, sink)
    named = settle(open_settlement, sink, session_id="s" + "é" * 200, generation_id=OTHER_ID)
    assert named["session_id"] == "s" + "é" * 63


def test_an_overlong_line_drops_client_strings_in_order(
    open_settlement: Open, sink: ListSink
) -> None:
    """The referrer goes first, the session last, and the line says that something is missing."""
    wide = {
        "model": ModelSpec(id="é" * 128, source="s", prices=MODEL.prices),
        "principal": Principal(api_key_id='"' * 64, account_id="\\" * 64),
        "runner_info": RunnerInfo(
            backend="é" * 32,
            backend_version="é" * 32,
            device="cpu",
            max_num_seqs=1,
            max_model_len=1,
            vocab_size=1,
        ),
    }
    client = dict.fromkeys(("user_id", "app_title", "session_id"), "é" * 64)
    event = settle(open_settlement, sink, **wide, **client, app_referer="é" * 128)
    names = ("app_referer", "app_title", "user_id", "session_id")
    kept = [event[name] is not None for name in names]
    assert kept == sorted(kept)
    assert kept[0] is False
    assert event["truncated"] is True
    assert event["model"] == "é" * 128


@pytest.mark.parametrize("precision", ["int4", "bf16", "w8a8", None])
def test_quantization_is_of_the_listed_vocabulary(
    open_settlement: Open, sink: ListSink, precision: str | None
) -> None:
    """A word that the market does not know is null."""
    runner = RunnerInfo(
        backend="b",
        backend_version="1",
        device="cpu",
        max_num_seqs=1,
        max_model_len=1,
        vocab_size=1,
        precision=precision,
    )
    event = settle(open_settlement, sink, runner_info=runner)
    assert event["quantization"] == (precision if precision in {"int4", "bf16"} else None)
