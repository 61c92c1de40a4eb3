"""What else the machine did meanwhile: CPU time of others, steal, memory of the servers.

All of it is read from `/proc` (proc(5)), once before a round and once after. A figure taken beside
a compiler is no figure, and a comparison of two such figures is worse: it looks like one. Without
`/proc` nothing can be known, and that is what is said then.
"""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
_TICKS_PER_S = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100
_LISTEN = "0A"  # state of a listening socket in /proc/net/tcp


@dataclass(frozen=True, slots=True)
class Process:
    """One process's line.

    Attributes:
        cpu_s: Its own user and system time.
        reaped_s: That of its children that have ended, added to it all at once when they do.
    """

    parent: int
    name: str
    cpu_s: float
    reaped_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Counters since boot.

    Attributes:
        busy_s: CPU time in user, nice and system mode, over all processors.
        steal_s: CPU time that the hypervisor gave to other guests.
        processes: Those that are visible, by id.
    """

    busy_s: float
    steal_s: float
    processes: Mapping[int, Process]


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineUse:
    """What happened between two snapshots, as processors' worth: CPU seconds per second.

    Attributes:
        generator: This process.
        server: The processes of the server under test.
        others: Everything else that ran.
        steal: What other guests of the host took.
        busiest: The visible process that took the most of `others`, with its share.
    """

    generator: float
    server: float
    others: float
    steal: float
    busiest: str = ""

    @property
    def noise(self) -> float:
        """What neither the generator nor the server had."""
        return self.others + self.steal


def take_snapshot(proc: Path = PROC) -> Snapshot | None:
    """Read the counters; `None` where there is no `/proc`."""
    try:
        ticks = [int(field) for field in (proc / "stat").read_text().split("\n", 1)[0].split()[1:]]
    except (OSError, ValueError):
        return None
    user, nice, system = ticks[:3]
    steal = ticks[7] if len(ticks) > 7 else 0
    processes: dict[int, Process] = {}
    for folder in proc.iterdir():
        if folder.name.isdigit():
            try:
                processes[int(folder.name)] = _read_process((folder / "stat").read_text())
            except (OSError, ValueError, IndexError):
                continue  # it has just ended
    return Snapshot((user + nice + system) / _TICKS_PER_S, steal / _TICKS_PER_S, processes)


def _read_process(line: str) -> Process:
    """Fields 2, 4 and 14 to 17 of `/proc/<pid>/stat`; the name may hold blanks and brackets."""
    head, _, rest = line.rpartition(")")
    fields = rest.split()
    user, system, reaped_user, reaped_system = map(int, fields[11:15])
    return Process(
        parent=int(fields[1]),
        name=head.partition("(")[2],
        cpu_s=(user + system) / _TICKS_PER_S,
        reaped_s=(reaped_user + reaped_system) / _TICKS_PER_S,
    )


def family(processes: Mapping[int, Process], pids: Iterable[int]) -> set[int]:
    """Processes and all their descendants."""
    found = {pid for pid in pids if pid in processes}
    while more := {p for p, process in processes.items() if process.parent in found} - found:
        found |= more
    return found


def ancestors(processes: Mapping[int, Process], pid: int) -> list[int]:
    """The processes that started one, the nearest first."""
    found: list[int] = []
    while pid in processes and (pid := processes[pid].parent) in processes:
        found.append(pid)
    return found


def use_between(
    before: Snapshot, after: Snapshot, *, wall_s: float, own_pid: int, server_pids: Iterable[int]
) -> MachineUse:
    """What ran between two snapshots.

    `others` is the machine's busy time less the generator's and the server's, so that processes
    which nobody here can see (other containers) or which have ended count, too. Of a server that
    started the generator, its other children are not told apart and count as others.
    """
    has_started_us = own_pid in family(after.processes, server_pids)

    def servers(processes: Mapping[int, Process]) -> set[int]:
        if has_started_us:
            return set(server_pids) & processes.keys() - {own_pid}
        return family(processes, server_pids)

    def total(processes: Mapping[int, Process]) -> float:
        """A child that ended has its time with its parent now, and had it itself before."""
        used = (processes[pid] for pid in servers(processes))
        return sum(each.cpu_s + (0.0 if has_started_us else each.reaped_s) for each in used)

    def spent(pid: int) -> float:
        had = before.processes[pid].cpu_s if pid in before.processes else 0.0
        return after.processes[pid].cpu_s - had

    own = {own_pid} & after.processes.keys()
    generator_s = sum(map(spent, own))
    servers_s = max(0.0, total(after.processes) - total(before.processes))
    others_s = max(0.0, after.busy_s - before.busy_s - generator_s - servers_s)
    strangers = after.processes.keys() - servers(after.processes) - own
    busiest = max(strangers, key=spent, default=None)
    words = ""
    # Counters advance by ticks, each process's at its own time: no one may exceed the sum.
    share = 0.0 if busiest is None else min(spent(busiest), others_s) / wall_s
    if busiest is not None and share >= 0.01:
        words = f"{after.processes[busiest].name} (pid {busiest}) {share:.2f}"
    return MachineUse(
        generator=generator_s / wall_s,
        server=servers_s / wall_s,
        others=others_s / wall_s,
        steal=max(0.0, after.steal_s - before.steal_s) / wall_s,
        busiest=words,
    )


def resident_bytes(pid: int, proc: Path = PROC) -> int | None:
    """Resident memory of a process and its descendants; `None` if it cannot be seen."""
    snapshot = take_snapshot(proc)
    pids = family(snapshot.processes, [pid]) if snapshot else set()
    total = 0
    for member in pids:
        try:
            status = (proc / str(member) / "status").read_text()
        except OSError:
            continue
        for line in status.splitlines():
            if line.startswith("VmRSS:"):
                total += int(line.split()[1]) * 1024
    return total or None


def find_listener(port: int, proc: Path = PROC) -> int | None:
    """The process that listens on a local TCP port, the oldest if several share the socket."""
    inodes = set()
    for table in ("tcp", "tcp6"):
        try:
            lines = (proc / "net" / table).read_text().splitlines()[1:]
        except OSError:
            continue
        for fields in map(str.split, lines):
            if fields[3] == _LISTEN and int(fields[1].rpartition(":")[2], 16) == port:
                inodes.add(f"socket:[{fields[9]}]")
    if not inodes:
        return None
    pids = sorted(int(folder.name) for folder in proc.iterdir() if folder.name.isdigit())
    return next((pid for pid in pids if _holds(proc / str(pid) / "fd", inodes)), None)


def _holds(fds: Path, inodes: set[str]) -> bool:
    """Whether one of a process's open files is one of these sockets."""
    try:
        return any(str(fd.readlink()) in inodes for fd in fds.iterdir())
    except OSError:  # it has ended, closed one meanwhile, or belongs to somebody else
        return False
