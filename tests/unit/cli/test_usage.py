"""`provider usage`: what it prints, and its exit codes: 0 clean, 1 discrepancies, 2 unreadable."""

import csv
import gzip
import io
import json
from collections.abc import Callable
from pathlib import Path

import orjson
import pytest
from typer.testing import CliRunner, Result

from provider_core.cli import make_cli
from provider_core.errors import ConfigurationError
from provider_core.types import Usage
from tests.unit.billing.journals import Log, QuickDisk, boot

COST = "0.0000342"  # of the ledger's example


@pytest.fixture
def journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A journal where the settings expect it, with its log beside it."""
    monkeypatch.chdir(tmp_path)
    folder, log = tmp_path / ".provider" / "journal", Log()
    with boot(folder, log, disk=QuickDisk()) as started:
        started.serve(3)
        started.settle(status="error", usage=Usage(), finish_reason="error")
    (tmp_path / "usage.log").write_bytes(b"".join(log.lines))
    return folder


def usage(*arguments: object) -> Result:
    """Run the command; an exception of ours is raised."""
    result = CliRunner().invoke(make_cli(), ["usage", *map(str, arguments)])
    if isinstance(result.exception, ConfigurationError):
        raise result.exception
    return result


def test_reconcile_finds_nothing_wrong(journal: Path) -> None:
    """Journal and log agree."""
    result = usage("reconcile", "--journal", journal, "--log", "usage.log")

    assert (result.exit_code, result.output) == (0, "4 events; all is well\n")


def test_reconcile_names_a_lost_line(journal: Path) -> None:
    """Exit code 1, the kind and the id, for people and for programs."""
    log = Path("usage.log")
    first, *rest = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(b"".join(rest))
    event_id = orjson.loads(first)["event_id"]

    result = usage("reconcile", "--journal", journal, "--log", log)
    assert result.exit_code == 1
    assert result.output.startswith(f"missing_in_log: {event_id}: ")
    assert result.output.endswith("\n4 events; 1 missing_in_log\n")

    found = json.loads(usage("reconcile", "--journal", journal, "--log", log, "--json").output)
    assert (found["kind"], found["subject"]) == ("missing_in_log", event_id)
    assert found["discrepancy"] is True


def test_reconcile_reads_this_provider_s_journal(journal: Path) -> None:
    """If nothing is named."""
    assert usage("reconcile").output == "4 events; all is well\n"
    (path,) = journal.glob("*.jnl")
    path.unlink()
    with pytest.raises(ConfigurationError, match="journal has no usage line"):
        usage("reconcile")


@pytest.mark.parametrize("content", [b"", b"garbage\n", b'{"event":"server.ready"}\n'])
@pytest.mark.parametrize(
    "arguments",
    [
        ("verify", "other.log"),
        ("reconcile", "--log", "other.log"),
        ("reconcile", "--log", "usage.log", "--collector", "other.log"),
        ("reconcile", "--log", "usage.log", "--access-log", "other.log"),
        ("export", "--to", "stripe", "usage.log", "other.log"),
        ("report", "other.log"),
    ],
)
def test_a_file_without_usage_is_a_mistake(
    journal: Path, arguments: tuple[str, ...], content: bytes
) -> None:
    """Nothing that was read is not well; the file is named."""
    Path("other.log").write_bytes(content)
    with pytest.raises(ConfigurationError, match=r"other\.log has no (usage|access) line"):
        usage(*arguments)


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda data: b"no" + data[2:], id="not-compressed"),
        pytest.param(lambda data: data[:-9], id="cut-off"),
        pytest.param(lambda data: data[:10] + b"\xff" * 8 + data[18:], id="damaged"),
    ],
)
def test_a_compressed_log_that_is_damaged_cannot_be_read(
    journal: Path, damage: Callable[[bytes], bytes]
) -> None:
    """The file is named."""
    data = gzip.compress(Path("usage.log").read_bytes())
    Path("usage.log.gz").write_bytes(data)
    assert usage("verify", "usage.log.gz").exit_code == 0
    Path("usage.log.gz").write_bytes(damage(data))

    with pytest.raises(ConfigurationError, match=r"cannot be read: usage\.log\.gz: "):
        usage("verify", "usage.log.gz")


def test_a_journal_s_file_may_have_another_name(journal: Path) -> None:
    """Its head says whose it is."""
    (path,) = journal.glob("*.jnl")
    expected = usage("verify", path)
    copied = usage("verify", path.rename("copy.jnl"))

    assert (copied.exit_code, copied.output) == (0, expected.output)


@pytest.mark.parametrize("depth", [250, 251, 252, 253, 254, 255, 300, 1020, 2000])
def test_a_line_that_nests_deeply_is_a_discrepancy(journal: Path, depth: int) -> None:
    """Whether it is only invalid or too deep to be read."""
    nested = b"[" * depth + b"]" * depth
    log = Path("usage.log")
    log.write_bytes(
        log.read_bytes()
        + b'{"event":"usage.final","event_id":"gen-x:final","a":%b}\n' % nested
        + b'{"event":"usage.heartbeat","a":%b}\n' % nested
        + b'{"event":"request.access","generation_id":"gen-x","a":%b}\n' % nested
    )
    result = usage("verify", log)

    assert result.exit_code == 1
    assert isinstance(result.exception, SystemExit)
    assert result.output.splitlines()[-1].startswith("4 events; ")


@pytest.mark.parametrize(
    "arguments",
    [
        ("export", "--to", "stripe"),
        ("export", "--to", "focus-csv"),
        ("export", "--to", "aws-marketplace", "--product-code", "p-1"),
        ("invoice", "acme", "--month", "2025-11"),
        ("report", "--format", "csv"),
        ("emit", "--journal"),
    ],
    ids=lambda arguments: arguments[2] if len(arguments) > 2 else arguments[0],
)
def test_a_line_that_was_altered_is_left_out_and_named(
    journal: Path, arguments: tuple[str, ...]
) -> None:
    """On standard error, with exit code 1; what is written is as if there were no such line."""
    log = Path("usage.log")
    first, *rest = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(b"".join(rest))
    without = usage(*arguments, log)
    altered = first.replace(b'"completion_tokens":120', b'"completion_tokens":100120')
    log.write_bytes(b"".join([altered, *rest]))

    result = usage(*arguments, log)
    assert (without.exit_code, result.exit_code) == (0, 1)
    if arguments[0] != "emit":  # which says when
        assert result.stdout == without.stdout
    assert len(result.stdout.splitlines()) == len(without.stdout.splitlines())
    assert f"altered: {orjson.loads(first)['event_id']}: usage.log:1: " in result.stderr
    assert "altered" not in result.stdout


def test_emit_writes_what_a_collector_lost(journal: Path) -> None:
    """The same ids and contents, one attempt more; then nothing is missing."""
    log = Path("usage.log")
    lines = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(b"".join(lines[1:]))

    emitted = usage("emit", "--missing-from", log).stdout_bytes

    again, lost = orjson.loads(emitted), orjson.loads(lines[0])
    assert (again["event_id"], again["content_sha256"]) == (
        lost["event_id"],
        lost["content_sha256"],
    )
    assert (again["emit_attempt"], again["recovered"], again["delivery"]) == (2, True, "sent")
    log.write_bytes(log.read_bytes() + emitted)
    assert usage("reconcile", "--journal", journal, "--log", log).exit_code == 0
    assert usage("emit", "--missing-from", log).output == ""
    assert usage("emit", "--since", "2035-01-01").output == ""
    assert len(usage("emit").output.splitlines()) == 4
    log.write_bytes(b"")
    assert len(usage("emit", "--missing-from", log).output.splitlines()) == 4


def test_verify_reads_this_provider_s_journal(journal: Path) -> None:
    """Without a path; a flipped bit is a discrepancy."""
    assert usage("verify").output == "4 events; all is well\n"
    (path,) = journal.glob("*.jnl")
    data = bytearray(path.read_bytes())
    data[500] ^= 1
    path.write_bytes(data)
    assert usage("verify").exit_code == 1


def test_report_as_csv_is_exact(journal: Path) -> None:
    """One row for each day, key and model; amounts are decimals."""
    (row,) = csv.DictReader(io.StringIO(usage("report", "--format", "csv").output))

    assert (row["api_key_id"], row["model"]) == ("key_9f31c0", "acme/llama-3.1-8b")
    assert (row["requests"], row["billable"]) == ("4", "3")
    assert (row["prompt_tokens"], row["completion_tokens"]) == (str(3 * 812), str(3 * 120))
    assert row["cost"] == "0.0001026"


@pytest.mark.parametrize(
    ("by", "names"),
    [
        ([], ["day", "api_key_id", "model"]),
        (["account"], ["account_id"]),
        (["model", "key"], ["model", "api_key_id"]),
    ],
)
def test_report_is_summed_as_asked(journal: Path, by: list[str], names: list[str]) -> None:
    """Any of day, key, account and model, in the order asked."""
    options = [part for group in by for part in ("--by", group)]
    row = json.loads(usage("report", "--format", "json", *options).output)

    assert list(row)[: len(names)] == names
    assert row["cost"] == "0.0001026"
    assert "0.0001026" in usage("report", *options).output


def test_report_as_html_has_plots_and_loads_nothing(journal: Path) -> None:
    """One self-contained page."""
    page = usage("report", "--format", "html").output

    assert page.startswith("<!doctype html>")
    assert page.count("<svg ") == 4
    assert "0.0001026 USD" in page
    assert "<script" not in page
    assert " src=" not in page


def test_report_of_nothing_is_empty(journal: Path) -> None:
    """No rows in another year, in any form."""
    assert "0 rows, 0 USD" in usage("report", "--since", "2035-01-01", "--format", "html").output
    rows = usage("report", "--since", "2035-01-01", "--format", "csv").output.splitlines()
    assert len(rows) == 1


@pytest.mark.parametrize("to", ["cloudevents", "openmeter", "lago", "stripe"])
def test_export_writes_one_object_a_line(journal: Path, to: str) -> None:
    """Each target's own form; `test_exports.py` compares them with golden files."""
    lines = usage("export", "--to", to).output.splitlines()

    assert len(lines) >= 4
    assert all(isinstance(json.loads(line), dict) for line in lines)


def test_export_to_the_aws_marketplace_needs_a_product_or_agreements(
    journal: Path, tmp_path: Path
) -> None:
    """What only the provider knows, in one of two forms."""
    command = ("export", "--to", "aws-marketplace")
    file = tmp_path / "agreements.toml"
    file.write_text("[acme]\naws_account_id = '1'\nlicense_arn = 'arn:aws:x'\n")
    both = ("--product-code", "p-1", "--agreements", str(file))
    for options in ((), both):
        with pytest.raises(ConfigurationError, match="--product-code"):
            usage(*command, *options)
    assert json.loads(usage(*command, *both[:2]).output)["ProductCode"] == "p-1"
    (record, *_) = json.loads(usage(*command, *both[2:]).output)["UsageRecords"]
    assert record["LicenseArn"] == "arn:aws:x"


def test_export_as_focus_is_csv(journal: Path) -> None:
    """Costs of the rows add up to the bills."""
    rows = list(csv.DictReader(io.StringIO(usage("export", "--to", "focus-csv").output)))
    assert {row["ProviderName"] for row in rows} == {"provider-core"}
    assert len(rows) == 9


def test_invoice_says_what_is_due(journal: Path) -> None:
    """Of a key or an account, in the month of the bills."""
    page = usage("invoice", "acme", "--month", "2025-11").output
    assert "Exact sum: 0.0001026 USD" in page
    assert "Due: 0.00 USD" in page
    assert "Exact sum: 0 USD" in usage("invoice", "acme", "--month", "2025-12").output


def test_compare_names_what_differs(journal: Path, tmp_path: Path) -> None:
    """Tokens, cost and cancellation, by the id that both know."""
    final = orjson.loads(Path("usage.log").read_bytes().splitlines()[0])
    record = {
        "id": "gen-theirs",
        "upstream_id": final["generation_id"],
        "native_tokens_prompt": 812,
        "native_tokens_completion": 120,
        "total_cost": 3.42e-05,
        "cancelled": False,
        "streamed": True,
    }
    file = tmp_path / "openrouter.json"
    file.write_text(json.dumps({"data": [record]}))
    assert usage("compare", "--openrouter", file).output == "1 records; no differences\n"

    wrong = {**record, "native_tokens_completion": 121, "total_cost": 3.43e-05}
    unknown = {**record, "upstream_id": "gen-nobody"}
    file.write_text("\n".join(map(json.dumps, (record, wrong, unknown))))
    result = usage("compare", "--openrouter", file)
    assert result.exit_code == 1
    assert f"differs: {final['generation_id']}: completion_tokens: we say 120" in result.output
    assert f"cost: we say {COST}, they say 0.0000343" in result.output
    assert "unknown: gen-nobody: theirs is gen-theirs" in result.output


@pytest.mark.parametrize(
    "arguments",
    [
        ("verify", "missing.log"),
        ("reconcile", "--journal", "missing"),
        ("report", "--since", "yesterday"),
        ("report", "--until", "2026-02-30"),
        ("invoice", "acme", "--month", "2026-13"),
        ("compare", "--openrouter", "usage.log.gz"),
        ("verify", "usage.log.gz"),
    ],
)
def test_what_cannot_be_read_is_said(journal: Path, arguments: tuple[str, ...]) -> None:
    """A `ConfigurationError`, which `main` turns into one line and exit code 2."""
    Path("usage.log.gz").write_bytes(b"no gzip \xff")
    with pytest.raises(ConfigurationError):
        usage(*arguments)
