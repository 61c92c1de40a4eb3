"""Requests that come together do not all go to one replica."""

import json
import subprocess

import pytest

from tests.platform.ray.installed import MARKS, PYTHON, ROOT

pytestmark = list(MARKS)


@pytest.fixture(scope="module")
def placed() -> dict[str, list[int]]:
    """Of each case, requests of either replica."""
    ran = subprocess.run(
        [PYTHON, ROOT / "tests/platform/ray/routed.py"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    found: dict[str, list[int]] = json.loads(ran.stdout)
    return found


@pytest.mark.parametrize("case", ["idle", "one_has_a_request", "one_was_not_heard_of_lately"])
def test_a_burst_is_halved(placed: dict[str, list[int]], case: str) -> None:
    """Each is counted before the next one is placed, whatever Ray has heard of the replicas."""
    assert placed[case] == [5, 5]


def test_what_other_ingresses_sent_counts(placed: dict[str, list[int]]) -> None:
    """As the replica says."""
    assert placed["one_belongs_to_other_ingresses"] == [0, 10]


def test_a_full_replica_is_passed_over(placed: dict[str, list[int]]) -> None:
    """Though it is the least busy one."""
    assert placed["one_is_full"] == [0, 10]


def test_what_ended_or_was_given_up_counts_no_longer(placed: dict[str, list[int]]) -> None:
    """Whether it was sent or not."""
    assert placed["after_all_have_ended"] == [0, 0]
