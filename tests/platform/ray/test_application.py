"""The deployments that settings make, as Ray takes them."""

import json
import subprocess
from typing import Any

import pytest

from tests.platform.ray.installed import MARKS, PYTHON, ROOT

pytestmark = list(MARKS)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, dict[str, Any]]]:
    """What three builds asked for."""
    asked = [
        {},
        {"min_replicas": "2", "num_cpus": "0.4", "num_gpus": "0.5", "max_ongoing_requests": "7"},
        {"min_replicas": "0", "max_replicas": "4", "target_ongoing_requests": "9.5"},
    ]
    ran = subprocess.run(
        [PYTHON, ROOT / "tests/platform/ray/built.py"],
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        cwd=tmp_path_factory.mktemp("built"),
        check=True,
    )
    builds: list[dict[str, dict[str, Any]]] = json.loads(ran.stdout)
    return builds


def test_a_replica_takes_what_its_server_does(built: list[dict[str, Any]]) -> None:
    """32 slots, and twice as many places in the queue; a queue of Ray's stays short."""
    options = built[0]["replicas"]
    assert options["num_replicas"] == 1
    assert options["max_ongoing_requests"] == 96
    assert options["max_queued_requests"] == 32
    assert options["graceful_shutdown_timeout_s"] == 30
    assert options["ray_actor_options"] == {"num_cpus": 1, "num_gpus": 0}
    assert built[0]["ingress"]["max_ongoing_requests"] == 2048


def test_settings_win(built: list[dict[str, Any]]) -> None:
    """Given as Ray's tools give them."""
    options = built[1]["replicas"]
    assert options["num_replicas"] == 2
    assert options["max_ongoing_requests"] == 7
    assert options["ray_actor_options"] == {"num_cpus": 0.4, "num_gpus": 0.5}


def test_replicas_scale_by_running_requests(built: list[dict[str, Any]]) -> None:
    """Between the fewest and the most."""
    scaling = built[2]["replicas"]["autoscaling_config"]
    assert (scaling["min_replicas"], scaling["max_replicas"]) == (0, 4)
    assert scaling["target_ongoing_requests"] == 9.5
