"""A ledger on a clock that tests turn by hand."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import pytest

from provider_core.billing import ProcessFacts
from provider_core.billing.settlement import Ledger, Settlement
from provider_core.interfaces import RunnerInfo
from provider_core.prices import Prices
from provider_core.types import ModelSpec, Principal
from tests import usage_lines

GENERATION_ID = "gen-01JD5Z7Q3M8W9X0Y1Z2A3B4C5D"
REQUEST_ID = "req-01JD5Z7Q2ZAAAAAAAAAAAAAAAA"
PRICES = Prices(
    prompt=Decimal("0.00000005"),
    completion=Decimal("0.00000008"),
    input_cache_read=Decimal("0.000000025"),
    version="2026-11-01.3",
)
MODEL = ModelSpec(id="acme/llama-3.1-8b", source="/models/llama", prices=PRICES)
RUNNER = RunnerInfo(
    backend="onnxruntime",
    backend_version="1.23.0",
    device="cpu",
    max_num_seqs=8,
    max_model_len=4096,
    vocab_size=32000,
    precision="int4",
)


@dataclass
class HandClock:
    """Both clocks, standing still until moved."""

    wall_s: float = 1_763_678_400.0
    mono_s: float = 1000.0

    def time(self) -> float:
        """Unix seconds."""
        return self.wall_s

    def monotonic(self) -> float:
        """Seconds that only grow."""
        return self.mono_s

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.wall_s += seconds
        self.mono_s += seconds


@dataclass
class ListSink:
    """Keeps the lines."""

    lines: list[bytes] = field(default_factory=list)

    def emit(self, line: bytes) -> None:
        """Take one line."""
        usage_lines.note(line)
        self.lines.append(line)

    @property
    def events(self) -> list[dict[str, Any]]:
        """The lines, parsed."""
        return [json.loads(line) for line in self.lines]


Open = Callable[..., Settlement]


@pytest.fixture
def clock() -> HandClock:
    """Time of the ledger."""
    return HandClock()


@pytest.fixture
def sink() -> ListSink:
    """Where the ledger's lines go."""
    return ListSink()


@pytest.fixture
def ledger(clock: HandClock, sink: ListSink) -> Ledger:
    """A ledger of one process."""
    process = ProcessFacts(
        boot_id="01JD5Z00000000000000000000",
        service_version="0.1.0",
        instance_id="host-1",
        platform="runpod",
        region="us-east",
        country="US",
    )
    return Ledger(sink, clock, process)


@pytest.fixture
def open_settlement(ledger: Ledger, clock: HandClock) -> Open:
    """Opens a settlement of a streamed chat received now; keywords override."""

    def open_(**overrides: Any) -> Settlement:
        facts: dict[str, Any] = {
            "generation_id": GENERATION_ID,
            "request_id": REQUEST_ID,
            "principal": Principal(api_key_id="key_9f31c0"),
            "model": MODEL,
            "runner_info": RUNNER,
            "endpoint": "chat.completions",
            "stream": True,
            "received_wall_s": clock.time(),
            "received_mono_s": clock.monotonic(),
        }
        return ledger.open(**facts | overrides)

    return open_
