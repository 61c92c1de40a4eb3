"""infra/logs/syslog-ng.conf, run by syslog-ng: whatever dies or refuses, every bill arrives."""

import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from provider_core.billing.audit import reconcile
from provider_core.billing.audit.books import Books
from provider_core.billing.audit.sources import read_source
from tests.infra.shipping import Collector, ContainerLog, Shipper, until
from tests.unit.billing.journals import Log, QuickDisk, boot

CONFIGURATION = Path(__file__).parents[2] / "infra/logs/syslog-ng.conf"
SYSLOG_NG = shutil.which("syslog-ng", path="/usr/sbin:/usr/bin")
OTHER = b'{"event":"server.ready","timestamp":"2026-11-20T22:40:01.482913Z","level":"info"}\n'

pytestmark = [
    pytest.mark.syslog_ng,
    pytest.mark.timeout(180),
    pytest.mark.skipif(SYSLOG_NG is None, reason="syslog-ng is not installed"),
]


@pytest.fixture(scope="module")
def bills(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    """What a server wrote: bills, and control totals at the end."""
    written = Log()
    with boot(tmp_path_factory.mktemp("journal"), written, disk=QuickDisk()) as started:
        started.serve(399)
    return written.lines


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
    ]
    made = Shipper(command, tmp_path, {"COLLECTOR_URL": f"http://127.0.0.1:{collector.port}/"})
    yield made
    made.kill()


def test_every_bill_arrives(
    tmp_path: Path,
    bills: list[bytes],
    container: ContainerLog,
    collector: Collector,
    shipper: Shipper,
) -> None:
    """Over two rotations, a kill, refusals that pass and that do not, and a collector that is gone.

    What arrives twice is the same line, and reconciliation finds nothing.
    """
    parts = iter([bills[start : start + 45] for start in range(0, len(bills), 45)])
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
    until(lambda: set(bills) <= set(collector.lines))

    assert set(collector.lines) == set(bills)
    log, collected = tmp_path / "written.log", tmp_path / "collected.log"
    log.write_bytes(b"".join(container.written))
    collected.write_bytes(b"".join(collector.lines))
    with Books() as books:
        books.read("log", read_source(log))
        books.read("collector", read_source(collected))
        found = list(reconcile.reconcile(books, now_s=time.time(), max_request_s=3600))
    assert [each for each in found if each.is_discrepancy] == []
