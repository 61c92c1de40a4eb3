"""An engine that hangs: reported, settled, and the process ended."""

import asyncio
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from time import monotonic

import pytest
from structlog.testing import capture_logs

from provider_core.errors import EngineDead, ProviderError, Unavailable
from provider_core.interfaces import Batch, EngineLoad
from provider_core.server.watchdog import EXIT_ENGINE_HUNG, Watchdog
from provider_core.types import EngineOutput, GenerationRequest, ModelSpec
from tests.serving import saying, scripted_runner, serving

BODY = {"model": "test-model", "prompt": "hi"}
LIMIT_S = 5.0

HANGING = """
import asyncio, os, threading
from tests.serving import saying, serving

async def main():
    hang = threading.Event()
    async with serving(
        saying("Hello!", on_execute=lambda _: hang.wait()), server={"watchdog_s": 0.05}
    ) as served:
        def exit_now(code):
            print([event["status"] for event in served.usage.events], flush=True)
            os._exit(code)

        served.server._exit_now = exit_now
        await served.post("/v1/completions", {"model": "test-model", "prompt": "hi"})

asyncio.run(main())
"""


async def test_m9_a_hanging_step_is_settled_and_ends_the_process() -> None:
    """What runs is billed as failed before the process goes."""
    may_run = threading.Event()

    def hang(_: Batch) -> None:
        may_run.wait()

    codes: list[int] = []
    async with serving(saying("Hello!", on_execute=hang)) as served:
        served.server._exit_now = codes.append
        watchdog = Watchdog(
            lambda: served.server.models.in_memory, LIMIT_S, served.server._engine_hung
        )
        engine = served.server.models.find("test-model").engine
        requests = [asyncio.create_task(served.post("/v1/completions", BODY)) for _ in range(3)]
        await served.wait_until(lambda: len(served.server.dispatcher.runs) == 3)
        await served.wait_until(lambda: engine.load().step_started_s is not None)

        watchdog.look(monotonic())
        assert codes == []
        with capture_logs() as lines:
            watchdog.look(monotonic() + LIMIT_S)
        assert codes == [EXIT_ENGINE_HUNG]
        assert [line["model"] for line in lines if line["event"] == "engine.hung"] == ["test-model"]
        assert [event["status"] for event in served.usage.events] == ["error"] * 3
        assert {event["error_code"] for event in served.usage.events} == {"backend_unavailable"}

        may_run.set()  # so that this process may go on
        await asyncio.gather(*requests)
        await served.settled()
        assert len(served.usage.events) == 3


async def test_an_idle_engine_never_hangs() -> None:
    """Between steps there is nothing to wait for, for however long."""
    codes: list[int] = []
    async with serving(saying("Hello!")) as served:
        served.server._exit_now = codes.append
        assert (await served.post("/v1/completions", BODY)).status == 200
        await served.settled()
        Watchdog(lambda: served.server.models.in_memory, LIMIT_S, served.server._engine_hung).look(
            monotonic() + 10**6
        )
    assert codes == []


async def test_m9_a_process_whose_engine_hangs_ends_by_itself() -> None:
    """With its own exit code, stacks on stderr, and the usage written."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        HANGING,
        cwd=Path(__file__).parents[2],
        env={"PYTHONPATH": "."},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    stdout, stderr = await process.communicate()
    assert process.returncode == EXIT_ENGINE_HUNG
    assert b"['error']" in stdout
    assert b"execute_model" in stderr


class PluginEngine:
    """An engine of a plugin, which nobody tells the server about when it dies."""

    def __init__(self, model: ModelSpec) -> None:
        self.info = scripted_runner()(model).info
        self.problem: ProviderError | None = None

    def submit(self, request: GenerationRequest, on_output: Callable[[EngineOutput], None]) -> None:
        """Take nothing."""

    def abort(self, request_id: str) -> None:
        """Nothing runs."""

    def load(self) -> EngineLoad:
        """Idle."""
        return EngineLoad(
            num_running=0,
            num_waiting=0,
            num_waiting_prompt_tokens=0,
            num_slots=1,
            num_kv_tokens=0,
            num_steps=0,
            num_prompt_tokens=0,
            num_generated_tokens=0,
            step_started_s=None,
        )

    def check_health(self) -> None:
        """Whatever the test says."""
        if self.problem is not None:
            raise self.problem

    async def close(self) -> None:
        """Nothing to free."""


async def test_a_plugins_dead_engine_ends_the_process() -> None:
    """One that cannot serve now only turns traffic away, as long as that lasts."""
    made: list[PluginEngine] = []

    def make(model: ModelSpec) -> PluginEngine:
        made.append(PluginEngine(model))
        return made[-1]

    async with serving(make, server={"watchdog_s": 0.05}) as served:
        server = served.server
        watchdog = Watchdog(
            tuple,
            LIMIT_S,
            lambda model: pytest.fail(model.spec.id),
            listed=lambda: server.models,
            on_dead=server._engine_died,
        )
        probe = served.url + "/readyz"

        made[0].problem = Unavailable("somebody else restarts")
        watchdog.look(monotonic())
        assert (await served.session.get(probe)).status == 503
        made[0].problem = None
        assert (await served.session.get(probe)).status == 200
        assert not server.stopping.is_set()

        made[0].problem = EngineDead("the device is gone")
        with capture_logs() as lines:
            watchdog.look(monotonic())
            watchdog.look(monotonic())
        assert [line["event"] for line in lines if line["log_level"] == "critical"] == [
            "engine.dead"
        ]
        assert (server.stopping.is_set(), server.exit_code) == (True, EXIT_ENGINE_HUNG)
