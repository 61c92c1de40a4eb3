"""The process of RunPod's SDK: `python -m provider_runpod.sdk_process LEVEL`, the server's child.

The SDK has it to itself because it wants the main thread with its signals, writes to standard
output, and forks for its heartbeat: what holds an engine must not be forked. It is imported while
models load, on a core of its own. Standard input brings one line of JSON, the facts, when requests
are served, and ends when the server does, however that happens.
"""

import json
import multiprocessing
import os
import sys
from threading import Thread

import runpod

from provider_runpod.facts import Facts
from provider_runpod.jobs import Jobs

EXIT_ORPHANED = 1


def main(log_level: str) -> None:
    """Take jobs until a signal; those that were taken are answered first."""
    runpod.RunPodLogger().set_level(log_level)
    line = sys.stdin.buffer.readline()
    if not line:
        sys.exit(EXIT_ORPHANED)
    Thread(target=_end_with_the_server, daemon=True).start()
    facts = Facts(**json.loads(line))
    jobs = Jobs(facts, runpod.serverless.progress_update)
    runpod.serverless.register_fitness_check(jobs.check_ready)
    runpod.serverless.start(
        {
            "handler": jobs.handle,
            "return_aggregate_stream": True,
            "concurrency_modifier": lambda _: facts.concurrency,
        }
    )


def _end_with_the_server() -> None:
    while os.read(sys.stdin.fileno(), 1):
        pass
    for process in multiprocessing.active_children():  # its heartbeat
        process.kill()
    os._exit(EXIT_ORPHANED)


if __name__ == "__main__":
    main(sys.argv[1])
