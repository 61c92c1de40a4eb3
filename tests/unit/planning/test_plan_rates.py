"""Reading what `provider bench --json` wrote."""

from dataclasses import replace
from pathlib import Path

import orjson
import pytest

from provider_core.errors import ConfigurationError
from provider_core.loadtest.report_json import report_json
from provider_core.planning.rates import read_rates
from tests.unit.loadtest.made_reports import NOISY, made_point, made_report, made_round


def write(path: Path, *, noisy: bool = False) -> Path:
    """A report of two servers; only the first one's first round can be used."""
    good = made_round(machine=NOISY) if noisy else made_round()
    counted = replace(good.summary, prompt_tokens=30, cached_tokens=10)
    good = replace(good, summary=counted)
    failed = replace(good, summary=replace(good.summary, errors={"http_429": 1}))
    cut = replace(good, is_whole=False)
    single = made_round(num_tokens=1)
    rounds = [good, failed, cut, single, made_round(), replace(good, target="B")]
    open_loop = made_point(good, concurrency=None, rate=2.0)
    report = made_report(made_point(*rounds), open_loop, labels=("A", "B"))
    path.write_bytes(report_json(report))
    return path


def test_rounds_are_read_with_their_means(tmp_path: Path) -> None:
    """In seconds, the tokens of a prefix cache not counted, and useless rounds left out."""
    closed, open_loop = read_rates(write(tmp_path / "rates.json")).rounds

    assert (closed.load, closed.concurrency, closed.rate) == ("c=1", 1, None)
    assert (open_loop.load, open_loop.concurrency, open_loop.rate) == ("2/s", None, 2.0)
    assert (closed.num_requests, closed.prompt_tokens, closed.output_tokens) == (1, 20, 11)
    assert closed.ttft_s == closed.ttft_p50_s == pytest.approx(0.5)
    assert closed.itl_s == pytest.approx(0.1)
    assert closed.requests_per_s == pytest.approx(1 / 1.5)
    assert closed.decoding_rows == pytest.approx(1.0 / 1.5)


def test_another_server_is_named_by_its_label(tmp_path: Path) -> None:
    """The first one counts by default."""
    path = write(tmp_path / "rates.json")

    assert len(read_rates(path, "B").rounds) == 1
    with pytest.raises(ConfigurationError, match="no round of C"):
        read_rates(path, "C")


def test_noise_is_passed_on(tmp_path: Path) -> None:
    """A plan of bad figures says so."""
    assert read_rates(write(tmp_path / "quiet.json")).warnings == []
    (warning,) = read_rates(write(tmp_path / "noisy.json", noisy=True)).warnings
    assert "not quiet" in warning


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "no report"),
        (b"[]", "no report"),
        (b"{}", "no report"),
        (orjson.dumps({"schema": "x", "targets": [{"label": "A"}], "points": []}), "of schema 'x'"),
    ],
)
def test_what_is_no_report_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    """In one line that names the file."""
    path = tmp_path / "rates.json"
    path.write_bytes(content)

    with pytest.raises(ConfigurationError, match=message):
        read_rates(path)
    with pytest.raises(ConfigurationError, match="cannot be read: No such file"):
        read_rates(tmp_path / "missing.json")
