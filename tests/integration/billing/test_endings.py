"""Exact bills of every ending: left at any token, priced anew meanwhile."""

import asyncio
import json
import socket
import struct
import threading
from contextlib import suppress
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from provider_core.interfaces import Batch
from provider_core.server.reload import ConfigurationFile, Reloader
from provider_core.settings import load_settings
from tests.integration.keys.test_credits import add, balance, make_key
from tests.serving import KEY, Serving, saying, serving

TEXT = "Helo!?"  # a token each letter, which all differ, and one for the end
RESET = struct.pack("ii", 1, 0)


class Steps:
    """Lets a runner take so many steps and no more.

    Attributes:
        is_stuck: It asks for one more.
    """

    def __init__(self, count: int) -> None:
        self._permits = threading.Semaphore(count)
        self.is_stuck = False

    def __call__(self, _: Batch) -> None:
        """Wait for one."""
        self.is_stuck = not self._permits.acquire(blocking=False)
        if self.is_stuck:
            self._permits.acquire(timeout=30)
            self.is_stuck = False

    def let(self, count: int) -> None:
        """Allow so many more."""
        for _ in range(count):
            self._permits.release()


async def ask(served: Serving, *, stream: bool) -> tuple[asyncio.StreamReader, socket.socket, Any]:
    """Send a completion over a connection of its own."""
    raw = socket.socket()
    raw.setblocking(False)  # noqa: FBT003 - the socket module takes no keyword
    await asyncio.get_running_loop().sock_connect(raw, ("127.0.0.1", served.port))
    reader, writer = await asyncio.open_connection(sock=raw)
    body = json.dumps({"model": "test-model", "prompt": "abc", "max_tokens": 9, "stream": stream})
    writer.write(
        "POST /v1/completions HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
        f"Authorization: Bearer {KEY}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()
    )
    return reader, raw, writer


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("reset", [False, True], ids=["fin", "rst"])
async def test_b11_a_client_that_leaves_pays_exactly_what_it_got(
    *, reset: bool, stream: bool
) -> None:
    """R3 to R5: tokens handed over before it left, none if there were none, none of whole ones."""
    steps = Steps(0)
    async with serving(saying(TEXT, on_execute=steps)) as served:
        for num_tokens in range(len(TEXT) + 1):
            steps.let(num_tokens)
            reader, raw, writer = await ask(served, stream=stream)
            await served.wait_until(lambda: steps.is_stuck)
            if stream and num_tokens:
                got = await reader.readuntil(f'"text":"{TEXT[num_tokens - 1]}"'.encode())
                assert got.count(b'"text":"') == num_tokens
            if reset:
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                writer.transport.abort()
            else:
                writer.close()
            await served.wait_until(lambda: not served.server.dispatcher.runs)
            with suppress(ConnectionError):
                await writer.wait_closed()
            steps.let(1)  # the step that was under way
            await served.settled()
        events = served.usage.events
    assert len(events) == len(TEXT) + 1
    for num_tokens, event in enumerate(events):
        delivered = num_tokens if stream else 0
        assert (event["status"], event["delivery"]) == ("cancelled", "failed")
        assert event["billing_rule"] == (("R3" if delivered else "R4") if stream else "R5")
        assert (event["completion_tokens"], event["prompt_tokens"]) == (delivered, 3)
        assert event["generated_tokens"] == num_tokens
        assert event["billable"] is bool(delivered)


def write_config(path: Path, served: Serving, pricing: str) -> None:
    """A file that serves the model as it is served, at other prices."""
    spec = served.server.models.find("test-model").spec
    path.write_text(
        f'[[model]]\nid = "test-model"\nsource = "{spec.source}"\nmax_num_seqs = 8\n'
        f'aliases = ["openai/gpt-test"]\n[model.pricing]\n{pricing}\n'
    )


async def test_b17_the_price_at_admission_is_billed(tmp_path: Path) -> None:
    """A price list that changes amid a stream is for the next request.

    The operator's file changes and is read anew while a stream runs: what its client is told, its
    bill, and what its account is charged are at the old prices.
    """
    steps = Steps(1)
    path = tmp_path / "provider.toml"
    async with serving(saying(TEXT, on_execute=steps)) as served:
        write_config(path, served, 'prompt = "0.000001"\ncompletion = "0.000002"')
        read_settings = partial(load_settings, config=path)
        file = ConfigurationFile(read_settings(), read_settings, served.plugins)
        models, read = served.server.models, file.read_specs
        reloader = Reloader(models, read, path, asyncio.Event(), read())
        options = await make_key(served, account_id="acme")
        await add(served, "100")
        body = {"model": "test-model", "prompt": "abc", "max_tokens": 6, "stream": True}
        running = asyncio.create_task(served.post("/api/v1/completions", body, **options))
        await served.wait_until(lambda: steps.is_stuck)

        write_config(path, served, 'prompt = "0.5"\ncompletion = "0.25"\nversion = "new"')
        await reloader.reload()
        listed = await (await served.session.get(served.url + "/v1/models")).json()
        assert Decimal(listed["data"][0]["pricing"]["prompt"]) == Decimal("0.5")
        steps.let(100)
        told = cost_told(await (await running).text())
        used, _ = await balance(served)
        told_later = cost_told(
            await (await served.post("/api/v1/completions", body, **options)).text()
        )
        used_later, _ = await balance(served)
        first, second = served.usage.events
    assert (first["prices"]["prompt"], first["prices"]["completion"]) == ("0.000001", "0.000002")
    assert Decimal(first["cost"]) == 3 * Decimal("0.000001") + 6 * Decimal("0.000002")
    assert told == used == Decimal(first["cost"])
    assert second["price_version"] == "new"
    assert Decimal(second["cost"]) == 3 * Decimal("0.5") + 6 * Decimal("0.25")
    assert (told_later, used_later - used) == (Decimal(second["cost"]), Decimal(second["cost"]))


def cost_told(stream: str) -> Decimal:
    """What a stream says that it cost."""
    last = [line for line in stream.splitlines() if line.startswith("data: {")][-1]
    return Decimal(str(json.loads(last[6:], parse_float=Decimal)["usage"]["cost"]))
