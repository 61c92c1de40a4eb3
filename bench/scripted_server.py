"""A server whose model costs nothing: a scripted runner paced at a fixed step.

``python -m bench.scripted_server --step-ms 5`` prints the bound port on stdout's first line and
serves until it gets SIGTERM. What it burns is the cost of the core alone.
"""

import argparse
import asyncio
import os
import signal
import sys

import uvloop

from provider_core.observability.logs import start_logging
from provider_core.settings import LoggingSettings
from tests.serving import ids_of, scripted_runner, serving

REPLY = ids_of("the quick brown fox jumps over the lazy dog ")


async def main() -> None:
    """Serve `test-model`, which says the same words for as long as it is asked to."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--step-ms", type=float, default=5.0)
    parser.add_argument("--slots", type=int, default=32)
    arguments = parser.parse_args()
    writer = start_logging(LoggingSettings(format="json"), os.open(os.devnull, os.O_WRONLY))
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    runner = scripted_runner(step_time_s=arguments.step_ms / 1000, reply=REPLY * 100)
    async with serving(runner, max_model_len=8192, max_num_seqs=arguments.slots) as served:
        sys.stdout.write(f"{served.port}\n")
        sys.stdout.flush()
        await stop.wait()
    writer.close()


if __name__ == "__main__":
    uvloop.run(main())
