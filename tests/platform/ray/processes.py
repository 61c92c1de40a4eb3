"""Processes as the system lists them: nobody's children can be asked for otherwise."""

from collections.abc import Iterator
from pathlib import Path

_REPLICA = b"ray::ServeReplica:default:replicas"


def servers(data_dir: Path) -> list[int]:
    """Every `provider serve` of a data folder."""
    variable = f"PROVIDER_DATA_DIR={data_dir}".encode()
    return [
        pid
        for pid in _all()
        if _read(pid, "cmdline").endswith(b"\0serve\0")
        and variable in _read(pid, "environ").split(b"\0")
    ]


def replicas(driver: int) -> list[int]:
    """Ray's processes of the deployment `replicas`, of one driver's cluster."""
    found = [pid for pid in _all() if _read(pid, "cmdline").startswith(_REPLICA)]
    return [pid for pid in found if driver in ancestors(pid)]


def ancestors(pid: int) -> list[int]:
    """Parents, and theirs."""
    found = []
    while status := _read(pid, "status"):
        pid = int(status.partition(b"PPid:")[2].split()[0])
        found.append(pid)
    return found


def _all() -> Iterator[int]:
    return (int(path.name) for path in Path("/proc").iterdir() if path.name.isdecimal())


def _read(pid: int, name: str) -> bytes:
    """What the system says; nothing of a process that ended, or is somebody else's."""
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:
        return b""
