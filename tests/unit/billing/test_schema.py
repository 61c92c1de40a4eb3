"""B25: the JSON Schema of the usage log, and lines that older versions wrote.

That every line of the whole suite fits is a fixture in `tests/conftest.py`.
"""

import re
from pathlib import Path
from typing import Any

import orjson
import pytest

from provider_core.billing.audit.books import Books
from provider_core.billing.audit.line_rules import faults
from provider_core.billing.audit.reconcile import reconcile
from provider_core.billing.audit.sources import read_source
from provider_core.billing.events import content_sha256
from provider_core.billing.schema import PATH

ROOT = Path(__file__).parents[3]
GOLDEN = sorted((ROOT / "tests/data/usage_lines").glob("*.jsonl"))
SCHEMA = orjson.loads(PATH.read_bytes())
FINAL = orjson.loads(GOLDEN[0].read_bytes().splitlines()[0])


def faulty(**fields: Any) -> list[str]:
    """What is wrong with a final of other values; `None` takes one out."""
    event = {name: value for name, value in {**FINAL, **fields}.items() if value != "left out"}
    event["content_sha256"] = content_sha256(event)
    return [f"{fault.kind}: {fault.detail}" for fault in faults(orjson.dumps(event), event)]


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_b25_lines_of_every_version_are_read(path: Path) -> None:
    """What a release wrote stays valid, hashes alike, costs the same and reconciles."""
    for line in path.read_bytes().splitlines(keepends=True):
        assert faults(line, orjson.loads(line)) == []
    with Books() as books:
        books.read("log", read_source(path))
        assert reconcile(books, now_s=4e9, max_request_s=0) == []


def test_b25_the_page_and_the_schema_name_the_same_fields() -> None:
    """`docs/log-schema.md` explains every field of the schema, and no other."""
    page = (ROOT / "docs/log-schema.md").read_text()
    for title, name in (
        ("usage.final", "final"),
        ("usage.adjustment", "adjustment"),
        ("usage.open", "open"),
        ("usage.heartbeat", "heartbeat"),
    ):
        section = page.split(f"## {title}\n")[1].split("\n## ")[0]
        explained = set(re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE))
        assert explained == set(SCHEMA["$defs"][name]["properties"])


def test_the_published_policy_names_every_rule() -> None:
    """Those that lines can carry, and R17, whose repeated answers have no line."""
    page = (ROOT / "docs/log-schema.md").read_text()
    sources = (ROOT / "provider_core/billing").rglob("*.py")
    written = {rule for path in sources for rule in re.findall(r'"(R\d+)"', path.read_text())}
    assert sorted(re.findall(r"^\| (R\d+) \|", page, re.MULTILINE)) == sorted(written | {"R17"})


def test_fields_of_later_minor_versions_are_ignored() -> None:
    """A reader of 1.0 reads 1.7."""
    assert faulty(schema="llm-usage/1.7", shoe_size=46) == []


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"seq": "left out"}, 'invalid: "seq" is a required property'),
        ({"schema": "llm-usage/2.0"}, "invalid: schema: "),
        ({"cost": "1e-5"}, "invalid: cost: "),
        ({"prompt_tokens": -1}, "invalid: prompt_tokens: "),
        ({"prompt_tokens": 2**53}, "invalid: prompt_tokens: "),
        ({"endpoint": "telepathy"}, "invalid: endpoint: "),
        ({"seq": 2**53}, "invalid: seq: "),
        ({"seq": 3.0}, "invalid: seq: 3.0 is not written as an integer"),
        ({"received_at": "2026-02-30T00:00:00.000000Z"}, "invalid: received_at: "),
        ({"prices": {"prompt": "-1"}}, "invalid: prices"),
        ({"total_tokens": 1}, "invalid: total_tokens is not the sum"),
        ({"cached_tokens": 813}, "invalid: cached_tokens and cache_write_tokens exceed"),
        ({"reasoning_tokens": 121}, "invalid: reasoning_tokens exceed"),
        ({"generated_tokens": 119}, "invalid: completion_tokens exceed"),
        ({"cancelled": True}, "invalid: cancelled does not fit"),
        ({"generation_id": f"gen-{'0' * 26}"}, "invalid: event_id is of another"),
        ({"billable": False}, "invalid: cost: "),
        ({"cost": "0.0000343"}, "cost_mismatch: cost is 0.0000343, its prices make 0.0000342"),
        ({"list_cost": "1"}, "cost_mismatch: list_cost is 1"),
    ],
)
def test_what_is_wrong_with_a_line_is_said(fields: dict[str, Any], said: str) -> None:
    """Form, sums and cost are each checked, whatever the hash says."""
    assert [fault for fault in faulty(**fields) if fault.startswith(said)]


def test_a_changed_line_is_altered() -> None:
    """The hash is over the content; the envelope may change."""
    altered = {**FINAL, "user_id": "me"}
    assert [fault.kind for fault in faults(b"{}", altered)] == ["altered"]
    assert faults(b"{}", {**FINAL, "emit_attempt": 7, "recovered": True}) == []


def test_a_line_is_short_and_ascii() -> None:
    """Longer than a pipe takes in one piece, or not ASCII: some collector would tear it."""
    assert [fault.kind for fault in faults(b"x" * 4096, FINAL)] == ["invalid"]
    assert [fault.kind for fault in faults("é".encode(), FINAL)] == ["invalid"]
