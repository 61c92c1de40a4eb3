"""infra/logs/syslog-ng.conf, run by syslog-ng: whatever dies or refuses, every bill arrives."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.infra.shipping import (
    OTHER,
    Collector,
    ContainerLog,
    Shipper,
    bills,
    discrepancies,
    until,
)

CONFIGURATION = Path(__file__).parents[2] / "infra/logs/syslog-ng.conf"
SYSLOG_NG = shutil.which("syslog-ng", path="/usr/sbin:/usr/bin")
NUM_PODS = 150
"""On a node: kubelet's default is 110 at most."""
FD_LIMIT = 3 * NUM_PODS
"""Enough for its files, and not for an inotify instance in each of its folders, too."""

pytestmark = [
    pytest.mark.syslog_ng,
    pytest.mark.timeout(180),
    pytest.mark.skipif(SYSLOG_NG is None, reason="syslog-ng is not installed"),
]


@pytest.fixture
def collector() -> Iterator[Collector]:
    """Where lines go."""
    opened = Collector()
    yield opened
    opened.close()


@pytest.fixture
def container(tmp_path: Path) -> ContainerLog:
    """Where lines come from."""
    return ContainerLog(tmp_path / "pods")


@pytest.fixture
def shipper(tmp_path: Path, collector: Collector) -> Iterator[Shipper]:
    """syslog-ng with the configuration as it is, but for the folder of logs."""
    text = CONFIGURATION.read_text().replace("/var/log/pods", str(tmp_path / "pods"))
    configuration = tmp_path / "syslog-ng.conf"
    configuration.write_text(text)
    command = [
        str(SYSLOG_NG),
        "--foreground",
        "--stderr",
        "--no-caps",
        f"--cfgfile={configuration}",
        f"--persist-file={tmp_path / 'persist'}",
        f"--pidfile={tmp_path / 'pid'}",
        f"--control={tmp_path / 'control'}",
        f"--fd-limit={FD_LIMIT}",
    ]
    made = Shipper(command, tmp_path, {"COLLECTOR_URL": f"http://127.0.0.1:{collector.port}/"})
    yield made
    made.kill()


def test_every_bill_arrives(
    tmp_path: Path, container: ContainerLog, collector: Collector, shipper: Shipper
) -> None:
    """Over two rotations, a kill, refusals that pass and that do not, and a collector that is gone.

    What arrives twice is the same line, and reconciliation finds nothing.
    """
    lines = bills(tmp_path / "journal", 399)
    parts = iter([lines[start : start + 45] for start in range(0, len(lines), 45)])
    shipper.start()
    container.write([OTHER, *next(parts)])
    container.write_error('Traceback: "event":"usage.final" of nobody')
    until(lambda: collector.lines)
    collector.status = 503
    container.write(next(parts))
    until(collector.refused.is_set)
    shipper.kill()  # with lines read that nobody has
    collector.status = 200
    container.write(next(parts))
    shipper.start()
    until(lambda: set(container.written) - {OTHER} <= set(collector.lines))

    shipper.kill()
    container.write(next(parts))
    container.rotate()
    container.write(next(parts))
    shipper.start()
    for status in (503, 403, 422):
        collector.status = status
        collector.refused.clear()
        until(collector.refused.is_set)
    container.write(next(parts))
    collector.status = 200
    until(lambda: set(container.written) - {OTHER} <= set(collector.lines))

    collector.close()
    container.write(next(parts))
    container.rotate()
    container.write(next(parts))
    collector.reopen()
    container.write(next(parts))
    assert next(parts, None) is None
    until(lambda: set(lines) <= set(collector.lines))

    assert set(collector.lines) == set(lines)
    assert discrepancies(tmp_path, container.written, collector.lines) == []


def test_a_node_is_full_of_pods(tmp_path: Path, collector: Collector, shipper: Shipper) -> None:
    """None of them keeps another's bills from being read, those of a pod that comes later too."""
    lines = bills(tmp_path / "journal", NUM_PODS + 1)
    logs = [ContainerLog(tmp_path / "pods", f"provider-{i}") for i in range(NUM_PODS)]
    for log, line in zip(logs, lines, strict=False):
        log.write([OTHER, line])
    shipper.start()
    until(lambda: set(lines[:NUM_PODS]) <= set(collector.lines))
    ContainerLog(tmp_path / "pods", "provider-later").write(lines[NUM_PODS:])
    until(lambda: set(lines) <= set(collector.lines))
