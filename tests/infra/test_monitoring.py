"""Alerts and boards: run by promtool, and asking for nothing that the server does not offer."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from provider_core import hookimpl
from provider_core.access.limit_store import MemoryLimitStore
from provider_core.billing.events import Endpoint
from provider_core.stores import StoreKind
from tests.serving import serving

FOLDER = Path(__file__).parents[2] / "infra/monitoring"
RULES = FOLDER / "rules.yaml"
BOARD = FOLDER / "grafana-board.json"
RUNBOOK = Path(__file__).parents[2] / "docs/operations.md"
PROMTOOL = shutil.which("promtool")
_RECORDED = re.compile(r"record: (\S+)\n\s+expr: .*?(?:by \((.*?)\).*)?$", re.MULTILINE)
_ASKED = re.compile(r"\b(?P<name>provider[_:][\w:]+)(?:\{(?P<matchers>[^}]*)\})?")


@pytest.mark.promtool
@pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed")
@pytest.mark.parametrize(
    "command", [("check", "rules", "rules.yaml"), ("test", "rules", "rules_test.yaml")]
)
def test_promtool_is_content(command: tuple[str, ...]) -> None:
    """Each alert fires when it should, with its words, and not when it should not."""
    run = subprocess.run(
        [str(PROMTOOL), *command], cwd=FOLDER, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stdout + run.stderr


def test_every_alert_has_a_test() -> None:
    """One that fires; a rule that nobody saw fire may be misspelled."""
    groups = yaml.safe_load(RULES.read_text())["groups"]
    alerts = {rule["alert"] for group in groups for rule in group["rules"] if "alert" in rule}
    tests = yaml.safe_load((FOLDER / "rules_test.yaml").read_text())["tests"]
    fired = {
        case["alertname"]
        for test in tests
        for case in test["alert_rule_test"]
        if case.get("exp_alerts")
    }
    assert fired == alerts


def test_every_alert_says_what_to_do() -> None:
    """In the runbook, a row each; a row of no alert is out of date."""
    groups = yaml.safe_load(RULES.read_text())["groups"]
    alerts = {rule["alert"] for group in groups for rule in group["rules"] if "alert" in rule}
    section = RUNBOOK.read_text().partition("\n## Alerts\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (`[^|]*) \|", section, re.MULTILINE)
    assert {name for row in rows for name in re.findall(r"`(\w+)`", row)} == alerts


def expressions() -> Iterator[str]:
    """What rules and panels ask for."""
    for group in yaml.safe_load(RULES.read_text())["groups"]:
        yield from (rule["expr"] for rule in group["rules"])
    board: dict[str, Any] = json.loads(BOARD.read_text())
    for panel in board["panels"]:
        yield from (target["expr"] for target in panel["targets"])
    yield from (variable["query"] for variable in board["templating"]["list"])


class _SharedLimits:
    """A plugin that counts rates for several servers, as far as this one can tell."""

    @hookimpl
    def make_store(self, kind: StoreKind) -> MemoryLimitStore | None:
        """Rates alone."""
        return MemoryLimitStore() if kind == "limits" else None


@pytest.fixture
async def page() -> str:
    """What a server answers to Prometheus after a request."""
    journal = {"enabled": True, "min_free_bytes": 0}
    async with serving(plugins=(_SharedLimits(),), journal=journal) as served:
        assert (await served.chat()).status == 200
        async with served.session.get(f"{served.url}/metrics") as response:
            return await response.text()


async def test_metrics_that_are_asked_for_exist(page: str) -> None:
    """With their types' endings, and with the labels that are asked for; recorded ones, too."""
    offered: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            offered.setdefault(sample.name, set()).update(sample.labels)
    for record, labels in re.findall(
        r"record: (\S+)\n\s+expr: .*?(?:by \((.*?)\).*)?$", RULES.read_text(), re.MULTILINE
    ):
        offered[record] = set(re.findall(r"\w+", labels)) - {"le"}
    asked = [found for text in expressions() for found in _ASKED.finditer(text)]
    assert len({found["name"] for found in asked}) > 15
    for found in asked:
        assert found["name"] in offered
        wanted = set(re.findall(r"(\w+)[=!]~?", found["matchers"] or ""))
        assert wanted <= offered[found["name"]], found[0]


async def test_counters_that_alerts_watch_are_there_before_they_count(page: str) -> None:
    """Prometheus sees no increase in a series that begins with its first event."""
    assert 'provider_log_warnings_total{event="credits.low"} 0.0' in page
    counted = {
        (sample.labels["endpoint"], sample.labels["status"]): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
        if sample.name == "provider_requests_total"
    }
    assert counted.pop(("chat.completions", "ok")) == 1
    assert {(each, "error") for each in get_args(Endpoint)} < counted.keys()
    assert not any(counted.values())


def test_panels_do_not_overlap() -> None:
    """And fit the grid of 24 columns."""
    taken: set[tuple[int, int]] = set()
    for panel in json.loads(BOARD.read_text())["panels"]:
        place = panel["gridPos"]
        cells = {
            (place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])
        }
        assert not cells & taken
        assert max(x for x, _ in cells) < 24
        taken |= cells
