"""The queue worker: the real SDK, a real server, and RunPod's side of the protocol on loopback."""

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from provider_core.server.app import EXIT_WORKER_FAILED
from tests.platform.runpod.control_plane import ControlPlane, control_plane
from tests.platform.scripted_process import PlatformProcess, platform_process
from tests.serving import KEY
from tests.sse_checker import check_stream

pytestmark = pytest.mark.asyncio(loop_scope="module")

MESSAGES = [{"role": "user", "content": "hi"}]
CHAT: dict[str, Any] = {"model": "test-model", "messages": MESSAGES}
LONG: dict[str, Any] = {**CHAT, "stream": True, "ignore_eos": True, "max_tokens": 2000}
SETTINGS = {"PROVIDER_RUNPOD_PROGRESS_S": "0.2", "PROVIDER_RUNPOD_STREAM_WINDOW_S": "0.2"}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def plane() -> AsyncIterator[ControlPlane]:
    """RunPod."""
    async with control_plane() as plane:
        yield plane


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def worker(
    plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[PlatformProcess]:
    """A worker that takes its jobs, and whose key comes from somewhere else."""
    folder = tmp_path_factory.mktemp("runpod")
    key = {"PROVIDER_API_KEY": "env://WORKER_KEY", "WORKER_KEY": KEY}
    environment = {**plane.environment, **SETTINGS, **key}
    async with platform_process(folder, "runpod", environment) as process:
        await process.until_logged("server.ready")
        yield process


def openai(body: dict[str, Any], route: str = "/v1/chat/completions") -> dict[str, Any]:
    """What RunPod's OpenAI proxy makes of a request."""
    return {"openai_route": route, "openai_input": body}


def bills_of(worker: PlatformProcess, job: str) -> list[dict[str, Any]]:
    """What was charged for a job."""
    return [event for event in worker.usage if event["client_request_id"] == job]


@pytest.mark.usefixtures("worker")
async def test_the_openai_proxy_is_answered_as_its_clients_expect(plane: ControlPlane) -> None:
    """The answer is the job's one output, by the path that the proxy names."""
    result = await plane.run("openai", openai(CHAT))
    (answer,) = result["output"]
    assert answer["choices"][0]["message"]["content"] == "Hello!"
    assert answer["usage"]["completion_tokens"] == 7
    assert plane.pieces["openai"] == [answer]


@pytest.mark.usefixtures("worker")
async def test_a_streamed_answer_comes_in_pieces_of_whole_events(plane: ControlPlane) -> None:
    """Together they are the stream, and they are far fewer than its events."""
    result = await plane.run(
        "stream", openai({**CHAT, "stream": True, "max_tokens": 40, "ignore_eos": True})
    )
    pieces = plane.pieces["stream"]
    assert result["output"] == pieces
    assert all(piece.endswith("\n\n") for piece in pieces)
    stream = check_stream("".join(pieces).encode())
    assert stream.texts[0].startswith("Hello!")
    num_events = "".join(pieces).count("\n\n")
    assert 2 <= len(pieces) < num_events / 2


@pytest.mark.usefixtures("worker")
@pytest.mark.parametrize(
    ("name", "job_input", "text"),
    [
        ("chat", {"messages": MESSAGES, "sampling_params": {"max_tokens": 3}}, "Hel"),
        ("text", {"prompt": "hi", "max_tokens": 2}, "He"),
        ("messages", {"route": "/v1/messages", "body": {**CHAT, "max_tokens": 9}}, "Hello!"),
    ],
)
async def test_every_shape_of_input_is_served(
    plane: ControlPlane, name: str, job_input: dict[str, Any], text: str
) -> None:
    """The shorthand gets the model filled in; any other path is called as it is named."""
    result = await plane.run(name, job_input)
    assert f'"{text}"' in json.dumps(result["output"][0])


@pytest.mark.usefixtures("worker")
async def test_a_path_without_a_body_is_read(plane: ControlPlane) -> None:
    """Listing models costs nothing and names them."""
    result = await plane.run("models", {"openai_route": "/v1/models"})
    assert [model["id"] for model in result["output"][0]["data"]] == ["test-model"]


async def test_a_refusal_fails_the_job_in_the_server_s_words(
    plane: ControlPlane, worker: PlatformProcess
) -> None:
    """Malformed input, an unknown model and a wrong key; none of them is billed."""
    before = len(worker.usage)
    malformed = await plane.run("malformed", {"nothing": 1})
    unknown = await plane.run("unknown", openai({**CHAT, "model": "no-such"}))
    headers = {"Authorization": "Bearer sk-wrong-key"}
    stranger = await plane.run("stranger", {**openai(CHAT), "headers": headers})
    assert "input has none of" in malformed["error"]
    assert json.loads(unknown["error"])["error"]["code"] == "model_not_found"
    assert json.loads(stranger["error"])["error"]["code"] == "invalid_api_key"
    assert plane.pieces["unknown"] == []
    assert len(worker.usage) == before


async def test_a_job_handed_out_twice_is_answered_twice_and_billed_once(
    plane: ControlPlane, worker: PlatformProcess
) -> None:
    """At the same time and again later: the same answer, one bill, under the job's id."""
    plane.hand_out("twice", openai(CHAT))
    plane.hand_out("twice", openai(CHAT))
    await plane.result("twice", 2)
    await plane.run("later", openai(CHAT))
    plane.hand_out("twice", openai(CHAT))
    await plane.result("twice", 3)
    await worker.until(lambda: bool(bills_of(worker, "later")))
    first, second, third = plane.results_of("twice")
    assert first["output"] == second["output"] == third["output"]
    (bill,) = bills_of(worker, "twice")
    assert (bill["status"], bill["platform"]) == ("ok", "runpod")
    assert bill["api_key_id"] == "key_fixed"


async def test_a_cancelled_job_ends_and_is_billed_as_a_client_that_left(
    plane: ControlPlane, worker: PlatformProcess
) -> None:
    """Within a step the slot is free; the other job goes on; the cancelled one has no result."""
    plane.hand_out("cancelled", openai(LONG))
    plane.hand_out("other", openai({**LONG, "max_tokens": 100}))
    await plane.until_streamed("cancelled", 2)
    plane.stop("cancelled")
    await plane.result("other")
    await worker.until(lambda: bool(bills_of(worker, "cancelled")))
    (bill,) = bills_of(worker, "cancelled")
    assert bill["status"] == "cancelled"
    assert 0 < bill["completion_tokens"] < 2000
    assert plane.results_of("cancelled") == []


@pytest.mark.usefixtures("worker")
async def test_as_many_jobs_run_as_the_model_has_slots(plane: ControlPlane) -> None:
    """They are asked for together, and pings name those that run."""
    names = [f"many-{number}" for number in range(4)]
    for name in names:
        plane.hand_out(name, openai({**LONG, "max_tokens": 300}))
    await asyncio.gather(*(plane.until_streamed(name, 1) for name in names))
    await plane.until_pinged("many-3")
    assert plane.results_of("many-0") == []
    assert max(plane.batch_sizes) == 4
    await asyncio.gather(*(plane.result(name) for name in names))
    assert plane.strangers == []


@pytest.mark.usefixtures("worker")
async def test_a_whole_answer_says_meanwhile_that_it_runs(plane: ControlPlane) -> None:
    """Whoever waits is told from time to time."""
    await plane.run("slow", openai({**CHAT, "ignore_eos": True, "max_tokens": 150}))
    told = [progress for job, progress in plane.progress if job == "slow"]
    assert told
    assert set(told[0]) == {"running_s"}


@pytest.mark.usefixtures("worker")
async def test_empty_polls_and_refused_ones_are_no_failure(plane: ControlPlane) -> None:
    """204 and FlashBoot's 400 mean that there is nothing yet."""
    plane.refusals += [400, 204, 500]
    assert (await plane.run("after", openai(CHAT)))["output"]


async def test_neither_keys_nor_texts_are_written_anywhere(
    plane: ControlPlane, worker: PlatformProcess
) -> None:
    """The SDK would write every piece of every answer, and it does so by default."""
    marker = "xylophone"
    await plane.run("private", openai({**CHAT, "messages": [{"role": "user", "content": marker}]}))
    written = worker.stderr + (worker.folder / "log").read_text()
    assert "private" in written
    assert marker not in written
    assert "Hello!" not in written.replace('"content": "Hello!"', "")  # the greeting's example
    assert KEY not in written


async def test_jobs_are_taken_from_the_loading_of_the_model_to_the_stop_signal(
    tmp_path: Path,
) -> None:
    """Before, they wait for any worker; what runs then ends, is posted and settled."""
    gate = tmp_path / "loaded"
    async with (
        control_plane() as plane,
        platform_process(tmp_path, "runpod", plane.environment, str(gate)) as worker,
    ):
        plane.hand_out("whole", openai({**LONG, "stream": False, "max_tokens": 200}))
        plane.hand_out("streamed", openai({**LONG, "max_tokens": 200}))
        await worker.until(lambda: bool(worker.descendants))
        assert plane.batch_sizes == []
        gate.touch()
        await plane.until_streamed("streamed", 1)
        assert await worker.stop() == 0
        assert len((await plane.result("whole"))["output"]) == 1
        streamed = await plane.result("streamed")
    assert check_stream("".join(streamed["output"]).encode()).error is None
    assert [event["status"] for event in worker.usage] == ["ok", "ok"]
    heartbeats = [event for event in worker.events if event["event"] == "usage.heartbeat"]
    assert heartbeats[-1]["closing"] is True


async def test_a_model_that_cannot_be_loaded_ends_both_processes(tmp_path: Path) -> None:
    """No SDK is left behind that would take jobs for nobody."""
    async with (
        control_plane() as plane,
        platform_process(tmp_path, "runpod", plane.environment, "fail") as worker,
    ):
        assert await worker.process.wait() == 2
        assert plane.batch_sizes == []
    assert "no such weights" in worker.stderr


async def test_the_server_does_not_outlive_the_sdk(tmp_path: Path) -> None:
    """Without it nobody would take jobs: the platform starts another worker."""
    async with (
        control_plane() as plane,
        platform_process(tmp_path, "runpod", plane.environment) as worker,
    ):
        assert (await plane.run("only", openai(CHAT)))["output"]
        sdk, heartbeat = worker.descendants
        os.kill(sdk, signal.SIGKILL)
        assert await worker.process.wait() == EXIT_WORKER_FAILED
        await worker.until(lambda: not Path(f"/proc/{heartbeat}").exists())
    assert len(worker.usage) == 1


async def test_the_sdk_does_not_outlive_the_server(tmp_path: Path) -> None:
    """A server that is killed takes the SDK and its heartbeat with it."""
    async with (
        control_plane() as plane,
        platform_process(tmp_path, "runpod", plane.environment) as worker,
    ):
        plane.hand_out("cut", openai(LONG))
        await plane.until_streamed("cut", 1)
        children = worker.descendants
        assert len(children) == 2
        worker.process.kill()
        await worker.process.wait()
        await worker.until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in children))
        assert all("error" in result for result in plane.results_of("cut"))
