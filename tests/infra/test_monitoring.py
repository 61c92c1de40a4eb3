"""Alerts and boards: run by promtool, and asking for nothing that the server does not offer."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from provider_core.observability.metrics import Metrics

FOLDER = Path(__file__).parents[2] / "infra/monitoring"
RULES = FOLDER / "rules.yaml"
BOARD = FOLDER / "grafana-board.json"
PROMTOOL = shutil.which("promtool")


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


def expressions() -> Iterator[str]:
    """What rules and panels ask for."""
    for group in yaml.safe_load(RULES.read_text())["groups"]:
        yield from (rule["expr"] for rule in group["rules"])
    board: dict[str, Any] = json.loads(BOARD.read_text())
    for panel in board["panels"]:
        yield from (target["expr"] for target in panel["targets"])
    yield from (variable["query"] for variable in board["templating"]["list"])


def test_metrics_that_are_asked_for_exist() -> None:
    """With their types' endings; recorded ones are recorded."""
    metrics = Metrics(
        dict,
        journal=lambda: {"up": 1, "unemitted_events": 0, "log_blocked_seconds": 0},
        is_sharing=lambda: True,
    )
    page = metrics.render()[0].decode()
    endings = {"histogram": ["_bucket", "_count", "_sum"]}
    offered = {
        name + ending
        for name, kind in re.findall(r"^# TYPE (\S+) (\w+)$", page, re.MULTILINE)
        for ending in endings.get(kind, [""])
    }
    recorded = set(re.findall(r"record: (\S+)", RULES.read_text()))
    asked = {name for text in expressions() for name in re.findall(r"\bprovider[_:][\w:]+", text)}
    assert len(asked) > 15
    assert asked - offered - recorded == set()


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
