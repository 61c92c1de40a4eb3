"""Two replicas on a real Ray, with the built-in model; one of them is killed under load."""

import asyncio
import json
import os
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from provider_starter import MODEL_DIR
from tests.platform.ray.installed import MARKS, PYTHON, ROOT
from tests.platform.ray.processes import replicas, servers
from tests.platform.replicas import PROVIDER, free_port
from tests.serving import KEY

pytestmark = [*MARKS, pytest.mark.timeout(120)]

_CONFIGURATION = f"""
[[model]]
id = "starter"
source = "{MODEL_DIR}"
pricing = {{ prompt = "0.000001", completion = "0.000002" }}
"""
_MAX_BODY_BYTES = 65_536
_HEADERS = {"Authorization": f"Bearer {KEY}"}


@dataclass(frozen=True, slots=True)
class Answer:
    """A stream, as its client saw it."""

    lines: list[str]

    @property
    def chunks(self) -> list[dict[str, Any]]:
        """What the lines of data hold."""
        data = [line.removeprefix("data: ") for line in self.lines if line.startswith("data: ")]
        return [json.loads(each) for each in data if each != "[DONE]"]

    @property
    def id(self) -> str:
        """Of the generation."""
        generation_id: str = self.chunks[0]["id"]
        return generation_id

    @property
    def is_whole(self) -> bool:
        """Whether it ends as it should."""
        return self.lines[-1:] == ["data: [DONE]"] and not self.error

    @property
    def error(self) -> dict[str, Any]:
        """What its last event says went wrong."""
        error: dict[str, Any] = self.chunks[-1].get("error", {})
        return error

    @property
    def num_cached_tokens(self) -> int:
        """Of the prompt, as billed."""
        usage = next(chunk["usage"] for chunk in self.chunks if chunk.get("usage"))
        num_tokens: int = usage["prompt_tokens_details"]["cached_tokens"]
        return num_tokens


@dataclass(slots=True)
class Cluster:
    """A running one."""

    folder: Path
    proxy_port: int
    port: int
    process: subprocess.Popen[bytes]
    session: aiohttp.ClientSession | None = field(default=None)

    def stop(self) -> None:
        """End it, and wait until it has. Idempotent."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()

    @property
    def log(self) -> Path:
        """Of all replicas."""
        return self.folder / "data/usage.log"

    def events(self, name: str) -> list[dict[str, Any]]:
        """Whole lines of one event."""
        lines = self.log.read_text(encoding="utf-8").splitlines(keepends=True)
        events = [json.loads(line) for line in lines if line.endswith("\n")]
        return [event for event in events if event["event"] == name]

    def bills(self, answers: list[Answer]) -> list[dict[str, Any]]:
        """Of these answers, in their order; each has one."""
        by_id: dict[str, list[dict[str, Any]]] = {}
        for event in self.events("usage.final"):
            by_id.setdefault(event["generation_id"], []).append(event)
        return [bill for answer in answers for (bill,) in [by_id[answer.id]]]

    def is_billed(self, answers: list[Answer]) -> bool:
        """Whether the log has them all."""
        billed = {event["generation_id"] for event in self.events("usage.final")}
        return {answer.id for answer in answers} <= billed

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until something holds; the test's time limit ends a wait in vain."""
        while not condition():  # noqa: ASYNC110 - whatever a test can look at
            await asyncio.sleep(0.02)

    async def until_both_answer(self) -> None:
        """Wait until requests are spread over two servers, which takes Ray a while."""
        boots: set[str] = set()
        while len(boots) < 2:
            answers = await asyncio.gather(*(self.chat("Hello!", max_tokens=2) for _ in range(4)))
            await self.until(partial(self.is_billed, answers))
            boots = {bill["boot_id"] for bill in self.bills(answers)}

    def ask(
        self,
        text: str,
        headers: Mapping[str, str] = _HEADERS,
        port: int | None = None,
        **fields: Any,
    ) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        """Ask for a stream of chat, by default past Ray's proxy."""
        assert self.session is not None
        messages = [{"role": "user", "content": text}]
        body = {"model": "starter", "stream": True, "messages": messages, **fields}
        url = f"http://127.0.0.1:{port or self.port}/v1/chat/completions"
        return self.session.post(url, json=body, headers=headers)

    async def chat(self, text: str, **fields: Any) -> Answer:
        """Ask, and read the answer to its end."""
        async with self.ask(text, **fields) as reply:
            return await _read(reply)


async def _read(reply: aiohttp.ClientResponse, begun: bytes = b"") -> Answer:
    assert reply.status == 200
    text = (begun + await reply.read()).decode()
    return Answer([line for line in text.splitlines() if line])


@pytest.fixture(scope="module")
def started() -> Iterator[Cluster]:
    """Two replicas; afterwards nothing of them is left, and their bills are in order."""
    folder = Path("/tmp") / f"provider-ray-{os.getpid()}"  # noqa: S108 - short: sockets are in it
    folder.mkdir()
    (folder / "provider.toml").write_text(_CONFIGURATION, encoding="utf-8")
    proxy_port, port = free_port(), free_port()
    environment = {
        **{name: value for name, value in os.environ.items() if name[:9] != "PROVIDER_"},  # noqa: TID251
        "PROVIDER_API_KEY": KEY,
        "PROVIDER_CONFIG": str(folder / "provider.toml"),
        "PROVIDER_DATA_DIR": str(folder / "data"),
        "PROVIDER_LIMITS__MAX_BODY_BYTES": str(_MAX_BODY_BYTES),
    }
    with (folder / "ray.log").open("wb") as log:
        process = subprocess.Popen(
            [
                PYTHON,
                "-P",
                ROOT / "tests/platform/ray/cluster.py",
                folder,
                str(proxy_port),
                str(port),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            env=environment,
            cwd=folder,
        )
    assert process.stdout is not None
    cluster = Cluster(folder, proxy_port, port, process)
    try:
        while (line := process.stdout.readline()) != b"ready\n":  # Ray writes there, too
            assert line, (folder / "ray.log").read_text(encoding="utf-8")[-4000:]
        yield cluster
    finally:
        cluster.stop()
        process.stdout.close()
        for pid in servers(folder / "data"):
            os.kill(pid, signal.SIGKILL)
        shutil.rmtree(folder)


@pytest.fixture
async def cluster(started: Cluster) -> AsyncIterator[Cluster]:
    """The same, with a client."""
    async with aiohttp.ClientSession() as session:
        started.session = session
        yield started


@pytest.mark.parametrize(("name", "request_id"), [("proxy_port", "mine-1"), ("port", "req-")])
async def test_streams_and_refusals_pass_through(
    cluster: Cluster, name: str, request_id: str
) -> None:
    """As a server by itself answers; but Ray's proxy gives requests their ids."""
    ask = partial(cluster.ask, port=getattr(cluster, name))
    async with ask("Hello!", headers=_HEADERS | {"X-Request-Id": "mine-1"}) as reply:
        (found,) = reply.headers.getall("X-Request-Id")
        assert found.startswith(request_id)
        assert len(reply.headers.getall("Date")) == 1
        assert reply.content_type == "text/event-stream"
        answer = await _read(reply)
    assert answer.is_whole
    assert len(answer.chunks) > 2

    async with ask("Hello!", max_tokens=-1) as reply:
        assert reply.status == 400
        assert (await reply.json())["error"]["param"] == "max_tokens"
    async with ask("Hello!", headers={"Authorization": "Bearer wrong-key"}) as reply:
        assert reply.status == 401
    async with ask("x" * _MAX_BODY_BYTES) as reply:
        assert reply.status == 413
    assert cluster.session is not None
    port = getattr(cluster, name)
    async with cluster.session.get(f"http://127.0.0.1:{port}/readyz") as reply:
        assert reply.status == 200


async def test_load_is_spread_and_beginnings_stay_together(cluster: Cluster) -> None:
    """Prompts with nothing in common fall anywhere; those with a beginning go where it is."""
    topics = [f"Subject {number}: " + f"{number} of many words. " * 40 for number in range(6)]
    first = await asyncio.gather(
        *(cluster.chat(text, max_tokens=120, ignore_eos=True) for text in topics)
    )
    second = [await cluster.chat(f"{text} And then?", max_tokens=4) for text in topics]

    await cluster.until(lambda: cluster.is_billed([*first, *second]))
    boots = [bill["boot_id"] for bill in cluster.bills(first)]
    assert len(set(boots)) == 2
    assert [bill["boot_id"] for bill in cluster.bills(second)] == boots
    assert min(answer.num_cached_tokens for answer in second) > 100
    assert {answer.num_cached_tokens for answer in first} == {0}


@pytest.mark.parametrize("name", ["proxy_port", "port"])
async def test_who_leaves_is_billed_for_what_was_sent(cluster: Cluster, name: str) -> None:
    """The disconnect reaches the engine through proxy, ingress and replica."""
    port = getattr(cluster, name)
    async with cluster.ask("Hello!", port=port, max_tokens=20_000, ignore_eos=True) as reply:
        begun = Answer([(await reply.content.readuntil(b"\n\n")).decode().strip()])

    await cluster.until(lambda: cluster.is_billed([begun]))
    (bill,) = cluster.bills([begun])
    assert bill["status"] == "cancelled"
    assert 0 < bill["generated_tokens"] < 20_000


async def _kill_under_load(cluster: Cluster, pid: int) -> tuple[list[Answer], list[Answer]]:
    """Kill a process while streams run; returns those that are whole, and those that are cut."""
    await cluster.until_both_answer()
    num_boots = len(cluster.events("server.ready"))
    asked = [cluster.ask(f"{number}!", max_tokens=600, ignore_eos=True) for number in range(8)]
    async with AsyncExitStack() as stack:
        replies = await asyncio.gather(*map(stack.enter_async_context, asked))
        begun = await asyncio.gather(*(reply.content.readuntil(b"\n\n") for reply in replies))
        os.kill(pid, signal.SIGKILL)
        answers = await asyncio.gather(*map(_read, replies, begun))
    await cluster.until(lambda: len(cluster.events("server.ready")) > num_boots)
    await cluster.until(partial(cluster.is_billed, answers))

    whole = [answer for answer in answers if answer.is_whole]
    cut = [answer for answer in answers if not answer.is_whole]
    assert whole
    assert {answer.error["code"] for answer in cut} == {"replica_lost"}
    assert {bill["status"] for bill in cluster.bills(whole)} == {"ok"}
    return whole, cut


async def test_a_killed_server_takes_only_its_own_streams(cluster: Cluster) -> None:
    """Those say so, the others are whole; Ray starts another, which settles the dead one's."""
    _, cut = await _kill_under_load(cluster, servers(cluster.folder / "data")[0])

    assert {bill["status"] for bill in cluster.bills(cut)} == {"interrupted"}
    assert {bill["billable"] for bill in cluster.bills(cut)} == {False}


async def test_a_killed_replica_s_server_settles_by_itself(cluster: Cluster) -> None:
    """Then it ends: Ray has started another in its place."""
    before = set(servers(cluster.folder / "data"))
    _, cut = await _kill_under_load(cluster, replicas(cluster.process.pid)[0])

    assert {bill["status"] for bill in cluster.bills(cut)} == {"cancelled"}
    await cluster.until(lambda: len(servers(cluster.folder / "data")) == 2)
    assert len(before & set(servers(cluster.folder / "data"))) == 1


def test_afterwards_nothing_is_lost_and_nothing_is_there_twice(started: Cluster) -> None:
    """The servers end by themselves, and journal, log and control totals agree."""
    started.stop()
    journal, log = str(started.folder / "data/journal"), str(started.log)
    command = ["usage", "reconcile", "--journal", journal, "--log", log, "--json"]
    ran = subprocess.run([*PROVIDER, *command], capture_output=True, text=True, check=False)

    assert servers(started.folder / "data") == []
    assert len(started.events("server.draining")) == 3  # the one whose replica was killed, too
    assert len(started.events("journal.recovered")) == 1
    bills = started.events("usage.final")
    assert len({bill["event_id"] for bill in bills}) == len(bills)
    found = [json.loads(line) for line in ran.stdout.splitlines()]
    assert [each for each in found if each.get("discrepancy")] == []
    assert ran.returncode == 0, ran.stdout + ran.stderr
