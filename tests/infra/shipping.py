"""What a log shipper stands between: a container's log that is rotated, and a collector."""

import signal
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from provider_core.billing.audit import reconcile
from provider_core.billing.audit.books import Books
from provider_core.billing.audit.reconcile import Finding
from provider_core.billing.audit.sources import read_source
from tests.unit.billing.journals import Log, QuickDisk, boot

OTHER = b'{"event":"server.ready","timestamp":"2026-11-20T22:40:01.482913Z","level":"info"}\n'
"""A line that is no bill."""

TIMEOUT_S = 30.0


def bills(folder: Path, count: int) -> list[bytes]:
    """What a server writes of so many generations, with its control totals at the end."""
    written = Log()
    with boot(folder, written, disk=QuickDisk()) as started:
        started.serve(count)
    return written.lines


def discrepancies(
    folder: Path, written: Sequence[bytes], collected: Sequence[bytes]
) -> list[Finding]:
    """What `provider usage reconcile` finds between a log and what was collected of it."""
    log, collector = folder / "written.log", folder / "collected.log"
    log.write_bytes(b"".join(written))
    collector.write_bytes(b"".join(collected))
    with Books() as books:
        books.read("log", read_source(log))
        books.read("collector", read_source(collector))
        found = reconcile.reconcile(books, now_s=time.time(), max_request_s=3600)
    return [each for each in found if each.is_discrepancy]


def until(is_true: Callable[[], object], timeout_s: float = TIMEOUT_S) -> None:
    """Wait for another process's doing.

    Raises:
        TimeoutError: It did not come.
    """
    deadline = time.monotonic() + timeout_s
    pause = threading.Event()
    while not is_true():
        if time.monotonic() > deadline:
            raise TimeoutError
        pause.wait(0.02)


class ContainerLog:
    """The log of one container as containerd writes it, and kubelet rotates it.

    Args:
        pods: What `/var/log/pods` is on a node.
        name: Of its pod.
    """

    def __init__(self, pods: Path, name: str = "provider-0") -> None:
        self._path = pods / f"default_{name}_8f0e" / "provider" / "0.log"
        self._path.parent.mkdir(parents=True)
        self._path.touch()
        self._num_rotated = 0
        self.written: list[bytes] = []

    def write(self, lines: Sequence[bytes]) -> None:
        """Append what the container has written to its standard output."""
        with self._path.open("ab") as file:
            for line in lines:
                file.write(b"2026-11-20T22:40:01.482913000Z stdout F " + line)
        self.written.extend(lines)

    def write_error(self, text: str) -> None:
        """Append a line of its standard error, which is none of ours."""
        with self._path.open("a", encoding="utf-8") as file:
            file.write(f"2026-11-20T22:40:01.482913000Z stderr F {text}\n")

    def rotate(self) -> None:
        """Give the file a name with the time, and begin a new one."""
        self._num_rotated += 1
        self._path.rename(f"{self._path}.20261120-2240{self._num_rotated:02}")
        self._path.touch()


class Collector:
    """An HTTP server that keeps what it is sent, and can refuse or be gone.

    Attributes:
        status: What it answers; only below 300 does it keep anything.
        lines: What it has kept, in order of arrival.
        refused: Set when it refuses.
    """

    def __init__(self) -> None:
        self.status = 200
        self.lines: list[bytes] = []
        self.refused = threading.Event()
        self._server = self._listen(0)

    @property
    def port(self) -> int:
        """Where it listens, on loopback."""
        return self._server.server_port

    def close(self) -> None:
        """Listen no more."""
        self._server.shutdown()
        self._server.server_close()

    def reopen(self) -> None:
        """Listen again, where it did."""
        self._server = self._listen(self.port)

    def take(self, body: bytes) -> int:
        """Keep a request's lines, or not; the status to answer with."""
        if self.status < 300:
            self.lines.extend(line + b"\n" for line in body.splitlines())
        else:
            self.refused.set()
        return self.status

    def _listen(self, port: int) -> ThreadingHTTPServer:
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:  # named by http.server
                body = self.rfile.read(int(self.headers["Content-Length"]))
                self.send_response(collector.take(body))
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *args: object) -> None:
                """Say nothing."""

        server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        return server


class Shipper:
    """A shipper's process, which can be killed and started again.

    Args:
        command: Starts it in the foreground.
        folder: Of its output.
        environment: All of its variables.
    """

    def __init__(self, command: Sequence[str], folder: Path, environment: dict[str, str]) -> None:
        self._command = command
        self._output = folder / "shipper.out"
        self._environment = environment
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it; it may not be ready yet."""
        with self._output.open("ab") as output:
            self._process = subprocess.Popen(
                self._command, stdout=output, stderr=output, env=self._environment
            )

    def kill(self, signal_number: int = signal.SIGKILL) -> None:
        """End it, by default as a machine's loss would."""
        if self._process is not None:
            self._process.send_signal(signal_number)
            self._process.wait(TIMEOUT_S)

    @property
    def output(self) -> str:
        """What it has said."""
        return self._output.read_text(errors="replace")
