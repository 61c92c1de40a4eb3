"""The server's side: a process for the SDK, from the start of the server to its end."""

import asyncio
import json
import os
import signal
import sys
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from importlib.util import find_spec

from provider_core import ConfigurationError, Unavailable
from provider_core.server.handler_settings import read_handler_settings
from provider_core.server.in_process import InProcess, Worker
from provider_runpod.facts import Facts
from provider_runpod.settings import RunPodSettings


def make_worker() -> Worker:
    """What takes jobs.

    Raises:
        ConfigurationError: The SDK is not installed, or a setting is wrong.
    """
    if find_spec("runpod") is None:
        raise ConfigurationError(
            'platform runpod needs its SDK: pip install "provider-core[runpod]"'
        )
    return partial(_take_jobs, read_handler_settings(RunPodSettings))


async def _take_jobs(settings: RunPodSettings, process: InProcess) -> None:
    """Run the SDK's process, which imports while models load, until the server stops.

    Raises:
        RuntimeError: It ended by itself.
    """
    sdk = await asyncio.create_subprocess_exec(
        sys.executable,
        "-P",  # a folder named runpod in the working directory is not the SDK
        "-m",
        "provider_runpod.sdk_process",
        settings.log_level,
        stdin=asyncio.subprocess.PIPE,
        stdout=sys.stderr,  # ours is for lines of JSON
        start_new_session=True,  # a signal of the terminal is for the server to pass on
    )
    try:
        with suppress(Unavailable):  # the server says why itself
            await process.until_ready()
            await _tell(sdk, _facts(settings, process))
            ended = asyncio.ensure_future(sdk.wait())
            stopping = asyncio.ensure_future(process.stopping.wait())
            await asyncio.wait({ended, stopping}, return_when=asyncio.FIRST_COMPLETED)
            stopping.cancel()
            if ended.done():
                raise RuntimeError(f"the SDK's process ended with {sdk.returncode}")
            sdk.terminate()  # it takes no more, and ends when its jobs have
            await ended
    finally:
        if sdk.returncode != 0:
            with suppress(ProcessLookupError):
                os.killpg(sdk.pid, signal.SIGKILL)  # its heartbeat, too
        await sdk.wait()


async def _tell(sdk: asyncio.subprocess.Process, facts: Facts) -> None:
    if sdk.stdin is not None:
        with suppress(ConnectionError):  # it has ended, which is seen next
            sdk.stdin.write(json.dumps(asdict(facts)).encode() + b"\n")
            await sdk.stdin.drain()


def _facts(settings: RunPodSettings, process: InProcess) -> Facts:
    model = process.specs[0]
    return Facts(
        socket_path=process.socket_path,
        model=model.id,
        api_key=process.api_key,
        concurrency=settings.concurrency or model.max_num_seqs,
        stream_window_s=settings.stream_window_s,
        stream_window_bytes=settings.stream_window_bytes,
        progress_s=settings.progress_s,
    )
