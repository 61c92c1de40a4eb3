"""Arrivals: drawn, of a trace, of a usage log."""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from provider_core.errors import ConfigurationError
from provider_core.loadtest.workload import Length
from provider_core.planning.traffic import Arrival, Trace, poisson_traffic, read_traffic


def read(path: Path, *lines: Any, output_tokens: Length | None = None) -> Trace:
    """A file of these lines."""
    path.write_text("\n".join(map(json.dumps, lines)) + "\n\n")
    return read_traffic(path, output_tokens=output_tokens, seed=0)


def drawn(seed: int, requests: tuple[Arrival, ...] = ()) -> list[Arrival]:
    """Two thousand seconds of five requests each."""
    lengths = {"prompt_tokens": Length(100, 50), "output_tokens": Length(20)}
    return poisson_traffic(rate=5, duration_s=2000, requests=requests, seed=seed, **lengths)


def test_a_poisson_process_has_its_rate_and_lengths() -> None:
    """Ten thousand requests, within four standard deviations."""
    arrivals = drawn(0)

    assert len(arrivals) == pytest.approx(10_000, abs=400)
    assert all(one.at_s <= next_.at_s < 2000 for one, next_ in pairwise(arrivals))
    assert {each.output_tokens for each in arrivals} == {20}
    assert {each.prompt_tokens for each in arrivals} == set(range(50, 151))


def test_the_seed_decides() -> None:
    """Nothing else does."""
    assert drawn(1) == drawn(1)
    assert drawn(1) != drawn(2)


def test_requests_of_a_trace_come_at_other_times() -> None:
    """In turn, over and over."""
    arrivals = drawn(0, (Arrival(0, 1, 2), Arrival(0, 3, 4)))

    assert [(each.prompt_tokens, each.output_tokens) for each in arrivals[:3]] == [
        (1, 2),
        (3, 4),
        (1, 2),
    ]
    assert [each.at_s for each in arrivals] == [each.at_s for each in drawn(0)]


def test_a_trace_is_read_in_the_order_of_its_times(tmp_path: Path) -> None:
    """The first request is at 0."""
    trace = read(
        tmp_path / "trace.jsonl",
        {"timestamp": 12.5, "prompt": [1, 2, 3], "max_tokens": 5},
        {"timestamp": 10, "prompt_tokens": 70},
        output_tokens=Length(9),
    )

    assert trace == Trace([Arrival(0, 70, 9), Arrival(2.5, 3, 5)], has_times=True)


def test_a_trace_may_have_no_times(tmp_path: Path) -> None:
    """Then somebody else must say when."""
    trace = read(tmp_path / "trace.jsonl", {"prompt_tokens": 7, "max_tokens": 5})

    assert trace == Trace([Arrival(0, 7, 5)], has_times=False)


def final(number: int, at: str, prompt_tokens: int, generated_tokens: int) -> dict[str, Any]:
    """What counts of a bill."""
    return {
        "event": "usage.final",
        "event_id": f"gen-{number}:final",
        "received_at": f"2026-11-20T22:40:{at}Z",
        "prompt_tokens": prompt_tokens,
        "generated_tokens": generated_tokens,
    }


def test_a_servers_log_is_a_trace(tmp_path: Path) -> None:
    """Each bill counts once, by when the request came; what made no token does not."""
    trace = read(
        tmp_path / "log.jsonl",
        {"event": "server.ready"},
        final(1, "02.500000", 30, 4),
        final(2, "00.000000", 10, 20),
        final(1, "02.500000", 30, 4),
        final(3, "01.000000", 10, 0),
    )

    assert trace == Trace([Arrival(0, 10, 20), Arrival(2.5, 30, 4)], has_times=True)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], "holds no request"),
        ([{"prompt": "text", "max_tokens": 5}], "line 1: neither prompt_tokens nor"),
        ([{"prompt_tokens": 5}], "no max_tokens; give --output-tokens"),
        ([[1]], "line 1"),
        ([{"event": "usage.final"}], "line 1: 'event_id'"),
        (
            [
                {"prompt_tokens": 5, "max_tokens": 5},
                {"timestamp": 1, "prompt_tokens": 5, "max_tokens": 5},
            ],
            "some lines have a timestamp",
        ),
    ],
)
def test_what_is_no_trace_is_refused(tmp_path: Path, lines: list[Any], message: str) -> None:
    """In one line that names the place."""
    with pytest.raises(ConfigurationError, match=message):
        read(tmp_path / "trace.jsonl", *lines)


def test_a_missing_trace_is_refused(tmp_path: Path) -> None:
    """As any file."""
    with pytest.raises(ConfigurationError, match="cannot be read"):
        read_traffic(tmp_path / "none", output_tokens=None, seed=0)
