"""The queries of `infra/logs` over real lines, against our own sums of them."""

import re
from decimal import Decimal
from pathlib import Path

import duckdb
import pytest

from provider_core.billing.audit.books import Books
from provider_core.billing.audit.sources import read_source
from provider_core.billing.audit.totals import totals
from provider_core.billing.schema import PATH
from provider_core.types import Usage
from tests.unit.billing.journals import Log, QuickDisk, boot

FOLDER = Path(__file__).parents[3] / "infra" / "logs"
NAMES = set(re.findall(r'"(\w+)": \{', PATH.read_text()))


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """Bills, a failure and an adjustment; one line twice, and a line of another kind."""
    written = Log()
    with boot(tmp_path / "journal", written, disk=QuickDisk()) as started:
        started.serve(5)
        started.settle(status="error", usage=Usage(prompt_tokens=3), finish_reason="error")
        whole = started.open(stream=False)
        started.settle(whole)
        whole.conclude(is_sent=False)
    path = tmp_path / "usage.log"
    other = b'{"event":"server.ready","timestamp":"2026-11-20T22:40:01.482913Z"}\n'
    path.write_bytes(b"".join([other, *written.lines, written.lines[0]]))
    return path


@pytest.fixture
def database(log: Path) -> duckdb.DuckDBPyConnection:
    """The views over these lines."""
    connection = duckdb.connect()
    connection.execute("SET VARIABLE usage_files = ?", [str(log)])
    connection.execute((FOLDER / "duckdb.sql").read_text())
    return connection


def test_spending_in_duckdb_is_ours(database: duckdb.DuckDBPyConnection, log: Path) -> None:
    """Exactly, after adjustments, each event once."""
    with Books() as books:
        books.read("log", read_source(log))
        (ours,) = totals(books)
    (row,) = database.sql("FROM spending").fetchall()
    assert row[:6] == (*ours.groups, ours.requests, ours.prompt_tokens, ours.completion_tokens)
    assert row[6] == Decimal(ours.cost)


def test_gaps_and_conflicts_in_duckdb(database: duckdb.DuckDBPyConnection, log: Path) -> None:
    """None in what was written; a lost line is a gap, another content a conflict."""
    for view in ("gaps", "conflicts"):
        assert database.sql(f"FROM {view}").fetchall() == []
    lines = log.read_bytes().splitlines(keepends=True)
    changed = lines[2].replace(b'"content_sha256":"', b'"content_sha256":"0')
    log.write_bytes(b"".join([*lines[:3], changed, *lines[4:]]))
    assert [row[1] for row in database.sql("FROM gaps").fetchall()] == [1]
    assert len(database.sql("FROM conflicts").fetchall()) == 1
    assert len(database.sql("FROM latencies").fetchall()) == 1


@pytest.mark.parametrize("name", ["duckdb.sql", "athena.sql"])
def test_queries_name_fields_of_the_schema(name: str) -> None:
    """A field that is renamed takes its queries along."""
    asked = set(re.findall(r"'\$\.(\w+)'", (FOLDER / name).read_text()))
    assert asked
    assert asked - NAMES == set()


def test_insights_queries_name_fields_of_the_schema() -> None:
    """The same for CloudWatch, whose queries nothing here can run."""
    text = (FOLDER / "logs-insights.txt").read_text()
    asked = set(re.findall(r"(?:pct|sum|latest|count_distinct)\((\w+)", text))
    assert asked
    assert asked - NAMES == set()
