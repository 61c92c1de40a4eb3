"""Signals that stop a server when it has no loop yet, and when it has none any more."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
STOPPING_PLUGIN = """
import os
import signal

os.kill(os.getpid(), signal.{signal})
print("went on")
"""
STOPPED_TWICE = """
import os
import signal
import sys

from provider_core.cli import main


class Greeted:
    def write(self, text):
        if "listens on" in text:
            os.kill(os.getpid(), signal.SIGTERM)

    def flush(self):
        pass


sys.stderr = Greeted()
code = None
try:
    main()
except SystemExit as end:
    code = end.code
for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
    os.kill(os.getpid(), signum)
raise SystemExit(code)
"""

CLOSING_NOTED = """
from provider_core.observability.line_writer import LineWriter

close = LineWriter.close


def note(writer, timeout_s=5.0):
    writer.write(b"closing within %g\\n" % timeout_s)
    return close(writer, timeout_s)


LineWriter.close = note
"""


def serve(
    folder: Path, code: str, *further_paths: Path, plugins: str, **variables: str
) -> tuple[int, str]:
    """Serve the model in the package; the exit code, and what is on stdout."""
    done = subprocess.run(
        [sys.executable, "-c", code, "serve", "--port", "0", "--data-dir", str(folder / "data")],
        cwd=folder,
        env={
            "PYTHONPATH": ":".join(map(str, (*further_paths, ROOT, ROOT / "plugins"))),
            "PROVIDER_PLUGINS": plugins,
            "PROVIDER_API_KEY": "sk-stop-signals",
            **variables,
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    return done.returncode, done.stdout


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_a_signal_before_the_loop_ends_the_start(tmp_path: Path, name: str) -> None:
    """At once and as asked for; the first process of a container would not hear it otherwise."""
    site = tmp_path / "site"
    info = site / "stopping-1.0.dist-info"
    info.mkdir(parents=True)
    (site / "stopping.py").write_text(STOPPING_PLUGIN.format(signal=name))
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: stopping\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[provider_core]\nstopping = stopping\n")
    main = "from provider_core.__main__ import main; main()"
    code, out = serve(tmp_path, main, site, plugins="stopping")
    assert code == 0
    assert "went on" not in out


def test_a_signal_behind_the_loop_changes_no_exit_code(tmp_path: Path) -> None:
    """A platform that repeats itself is no reason to look as if we had been killed."""
    code, out = serve(tmp_path, STOPPED_TWICE, plugins="starter,onnxruntime")
    assert code == 0
    assert '"server.stopped"' in out


def test_the_last_lines_wait_for_their_reader_within_the_grace(tmp_path: Path) -> None:
    """Less than the seconds that they would have otherwise."""
    code, out = serve(
        tmp_path,
        CLOSING_NOTED + STOPPED_TWICE,
        plugins="starter,onnxruntime",
        PROVIDER_SERVER__GRACE_S="4",
    )
    assert code == 0
    (line,) = [line for line in out.splitlines() if line.startswith("closing")]
    assert 0 < float(line.split()[-1]) < 4
