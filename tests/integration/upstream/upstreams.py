"""Upstreams for tests: our own server in a process, and a backend that forwards to any."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from provider_core import Engine, ModelSpec
from provider_upstream import load_model
from tests.serving import KEY

ROOT = Path(__file__).parents[3]


def forwarding_to(base_url: str, **options: Any) -> Callable[[ModelSpec], Engine]:
    """A factory of engines that forward to a server."""

    def make(model: ModelSpec) -> Engine:
        options_of = {"base_url": base_url, "api_key": KEY, **options}
        spec = replace(model, backend="upstream", options=options_of)
        engine = load_model(spec, Path(model.source))
        assert engine is not None
        return engine

    return make


@dataclass
class UpstreamProcess:
    """Our own server as an upstream."""

    process: "subprocess.Popen[str]"
    url: str

    def ended(self) -> tuple[str, int]:
        """Wait for the next request to end: how, and how many tokens were made."""
        assert self.process.stdout is not None
        status, num_generated = json.loads(self.process.stdout.readline())
        return status, num_generated


@contextmanager
def upstream_process() -> Iterator[UpstreamProcess]:
    """Start it, and stop it if it still runs."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.upstream_process"],
        cwd=ROOT,
        env={"PYTHONPATH": f"{ROOT}:{ROOT / 'plugins'}"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        try:
            yield UpstreamProcess(process, f"{url}/v1")
        finally:
            assert process.stdin is not None
            process.stdin.close()
            process.wait()
