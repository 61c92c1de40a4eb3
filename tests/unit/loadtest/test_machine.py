"""What others did on the machine, from a `/proc` that a test writes."""

import os
import socket
from dataclasses import replace
from pathlib import Path

import pytest

from provider_core.loadtest.machine import (
    Process,
    Snapshot,
    ancestors,
    find_listener,
    resident_bytes,
    take_snapshot,
    use_between,
)

TICKS = os.sysconf("SC_CLK_TCK")


def write_process(
    proc: Path, pid: int, *, parent: int = 1, name: str = "x", ticks: tuple[int, ...] = (0, 0, 0, 0)
) -> None:
    """A process's folder."""
    folder = proc / str(pid)
    folder.mkdir(exist_ok=True)
    before = " ".join("0" for _ in range(9))
    times = " ".join(map(str, ticks))
    (folder / "stat").write_text(f"{pid} ({name}) S {parent} {before} {times} 20 0 1 0\n")
    (folder / "status").write_text(f"Name:\t{name}\nVmHWM:\t 999 kB\nVmRSS:\t {pid} kB\n")


def write_stat(proc: Path, *, user: int, nice: int, system: int, steal: int) -> None:
    """The machine's counters."""
    (proc / "stat").write_text(
        f"cpu  {user} {nice} {system} 9999 5 7 8 {steal} 0 0\ncpu0 1 1 1 1\nintr 1\n"
    )


def test_a_snapshot_reads_the_kernels_counters(tmp_path: Path) -> None:
    """Idle and waiting times are not work; a name may hold blanks and brackets."""
    write_stat(tmp_path, user=100, nice=20, system=3, steal=50)
    write_process(tmp_path, 7, parent=3, name="a (b) c", ticks=(10, 20, 30, 40))
    (tmp_path / "self").mkdir()
    (tmp_path / "8").mkdir()  # it has just ended

    taken = take_snapshot(tmp_path)

    assert taken == Snapshot(
        123 / TICKS, 50 / TICKS, {7: Process(3, "a (b) c", 30 / TICKS, 70 / TICKS)}
    )


def test_without_proc_nothing_is_known(tmp_path: Path) -> None:
    """It must not look quiet."""
    assert take_snapshot(tmp_path / "none") is None


def snapshot(busy_s: float, steal_s: float, **cpu_s: tuple[int, float]) -> Snapshot:
    """Processes `p7=(parent, cpu_s)`."""
    processes = {
        int(name[1:]): Process(parent, name, spent) for name, (parent, spent) in cpu_s.items()
    }
    return Snapshot(busy_s, steal_s, processes)


def test_work_is_told_apart() -> None:
    """Own, the server's with its children, others' (visible or not), and the hypervisor's."""
    before = snapshot(100.0, 10.0, p1=(0, 5.0), p2=(1, 1.0), p3=(1, 50.0), p4=(3, 2.0))
    after = snapshot(
        120.0, 11.0, p1=(0, 5.5), p2=(1, 2.0), p3=(1, 58.0), p4=(3, 4.0), p5=(4, 2.0), p9=(1, 3.0)
    )

    use = use_between(before, after, wall_s=10.0, own_pid=2, server_pids=[3])

    assert use.generator == pytest.approx(0.1)
    assert use.server == pytest.approx(1.2)
    assert use.others == pytest.approx(0.7)
    assert use.steal == pytest.approx(0.1)
    assert use.noise == pytest.approx(0.8)
    assert use.busiest == "p9 (pid 9) 0.30"


def test_a_child_that_ends_brings_its_parent_no_past_of_its_own() -> None:
    """An hour of a build's CPU time enters its shell's line at once, and ran long before."""
    shell, server = Process(1, "bash", 1.0), Process(1, "server", 50.0)
    make, worker = Process(6, "make", 30.0), Process(3, "worker", 20.0)
    before = Snapshot(100.0, 0.0, {3: server, 4: worker, 6: shell, 7: make})
    server, shell = Process(1, "server", 50.5, 20.5), Process(1, "bash", 1.5, 30.2)
    after = Snapshot(102.0, 0.0, {3: server, 6: shell})

    use = use_between(before, after, wall_s=1.0, own_pid=2, server_pids=[3])

    assert use.server == pytest.approx(0.5 + 0.5)
    assert use.others == pytest.approx(2.0 - 1.0)
    assert use.busiest == "bash (pid 6) 0.50"


def test_a_server_that_started_the_generator_hides_no_one() -> None:
    """All that runs here may descend from it, as from process 1, and may end."""
    before = snapshot(50.0, 0.0, p1=(0, 0.0), p2=(1, 0.0), p3=(1, 0.0), p4=(1, 50.0))
    after = snapshot(59.0, 0.0, p2=(1, 2.0), p3=(1, 6.0))
    after = replace(after, processes={**after.processes, 1: Process(0, "p1", 1.0, 50.0)})

    use = use_between(before, after, wall_s=1.0, own_pid=2, server_pids=[1])

    assert (use.generator, use.server, use.others) == (2.0, 1.0, 6.0)
    assert use.busiest == "p3 (pid 3) 6.00"


def test_no_other_used_more_than_all_others() -> None:
    """In a round of two ticks one counter may be a tick ahead of the other."""
    before, after = snapshot(1.0, 0.0, p3=(1, 1.0)), snapshot(1.01, 0.0, p3=(1, 1.02))

    use = use_between(before, after, wall_s=0.02, own_pid=2, server_pids=[])

    assert use.others == pytest.approx(0.5)
    assert use.busiest == "p3 (pid 3) 0.50"


def test_ancestors_are_told_from_the_nearest_on() -> None:
    """Up to the one whose parent cannot be seen."""
    processes = snapshot(0.0, 0.0, p1=(0, 0.0), p5=(1, 0.0), p7=(5, 0.0), p8=(1, 0.0)).processes

    assert ancestors(processes, 7) == [5, 1]
    assert ancestors(processes, 99) == []


def test_a_quiet_machine_has_no_busiest() -> None:
    """And rounding of the counters is no negative work."""
    before = snapshot(100.0, 1.0, p1=(0, 1.0), p2=(1, 5.0))

    use = use_between(
        before, snapshot(100.9, 1.0, p1=(0, 1.0), p2=(1, 6.0)), wall_s=1, own_pid=2, server_pids=[8]
    )

    assert (use.noise, use.server, use.busiest) == (0.0, 0.0, "")


def test_memory_is_that_of_the_whole_family(tmp_path: Path) -> None:
    """Resident now, not at its highest."""
    write_stat(tmp_path, user=0, nice=0, system=0, steal=0)
    for pid, parent in ((30, 1), (31, 30), (32, 31), (40, 1)):
        write_process(tmp_path, pid, parent=parent)

    assert resident_bytes(30, tmp_path) == (30 + 31 + 32) * 1024
    assert resident_bytes(99, tmp_path) is None


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="reads /proc")
def test_a_listener_is_found_by_its_port() -> None:
    """This process, for one; and nobody on a port without one."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port = listening.getsockname()[1]

        assert find_listener(port) is None
        listening.listen()
        assert find_listener(port) == os.getpid()
