"""`make bench`: every benchmark after the other, and the machine they ran on."""

import os
import platform
import subprocess
import sys
from pathlib import Path

ALL = (
    "engine_step",
    "text_cost",
    "dialect_cost",
    "core_cost",
    "request_edges",
    "journal",
    "start",
    "prefix_cache",
    "speculation",
    "constrained_decoding",
    "throughput",
)


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()


def main() -> None:
    """Run each in a process of its own."""
    print(f"{_processor()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    print(f"load average before: {os.getloadavg()[0]:.2f} (a quiet machine is below 0.2)")
    for name in sys.argv[1:] or ALL:
        print(f"\n== bench.{name}", flush=True)
        subprocess.run([sys.executable, "-m", f"bench.{name}"], check=True)


if __name__ == "__main__":
    main()
