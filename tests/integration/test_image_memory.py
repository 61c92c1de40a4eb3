"""What images may take of a server's memory: of one request, and of all together."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from provider_core import hookimpl
from provider_core.errors import RateLimited
from tests.integration.test_images import PATH, SeeingRunner, body, picture, seeing, text
from tests.serving import Serving

ONE: dict[str, Any] = {  # picture of `LARGE` fills all memory, for which nobody waits long
    "images": {"memory_mib": 1, "max_request_pixels": 320_000},
    "limits": {"queue_wait_s": 0.02},
}
LARGE = (20, 16_000)


async def test_v7_pictures_of_a_request_are_limited_together(tmp_path: Path) -> None:
    """By their headers alone: what is behind them, here nothing, is not looked at."""
    async with seeing(tmp_path, images={"max_request_pixels": 12}) as (served, runner):
        red = picture("red")
        assert (await served.post(PATH, body(red, red))).status == 200
        response = await served.post(PATH, body(red, picture("red", cut=30), picture("red", 3)))
        error = (await response.json())["error"]
        assert (response.status, error["code"], error["param"]) == (
            400,
            "invalid_image",
            "messages",
        )
        assert error["message"] == (
            "the images of a request must have at most 12 pixels together, not 21"
        )
        assert (runner.num_looks, len(served.usage.events)) == (2, 1)


async def test_pictures_wait_for_memory_until_others_were_looked_at(tmp_path: Path) -> None:
    """One that waits in vain is refused, unbilled; texts need none of it."""
    async with seeing(tmp_path, **ONE) as (served, runner):
        runner.may_end.clear()
        first = asyncio.create_task(served.post(PATH, body(picture("red", *LARGE))))
        await served.wait_until(lambda: runner.num_looks == 1)
        refused = await served.post(PATH, body(picture("blue", *LARGE)))
        assert (refused.status, (await refused.json())["error"]["code"]) == (429, "overloaded")
        assert "Retry-After" in refused.headers
        assert (await served.post(PATH, body(text("hi")))).status == 200
        runner.may_end.set()
        assert (await first).status == 200
        assert (await served.post(PATH, body(picture("blue", *LARGE)))).status == 200
        assert len(served.usage.events) == 3


async def test_nobody_waits_for_memory_beyond_the_deadline(tmp_path: Path) -> None:
    """Which is an error of its own."""
    async with seeing(tmp_path, images=ONE["images"]) as (served, runner):
        runner.may_end.clear()
        first = asyncio.create_task(served.post(PATH, body(picture("red", *LARGE))))
        await served.wait_until(lambda: runner.num_looks == 1)
        hurry = {"X-Request-Deadline-Ms": "50"}
        late = await served.post(PATH, body(picture("blue", *LARGE)), headers=hurry)
        runner.may_end.set()
        assert (late.status, (await late.json())["error"]["code"]) == (504, "deadline_exceeded")
        assert (await first).status == 200


class Doorkeeper:
    """Lets nobody in who asks for one token."""

    @hookimpl
    def admit_request(self, max_tokens: int) -> None:
        """At the second gate, when pictures are decoded."""
        if max_tokens == 1:
            raise RateLimited("no")


async def leave_during_a_look(served: Serving, runner: SeeingRunner) -> None:
    """As a client that closes its connection."""
    runner.may_end.clear()
    asked = asyncio.create_task(served.post(PATH, body(picture("red", *LARGE))))
    await served.wait_until(lambda: runner.num_looks == 1)
    asked.cancel()
    await served.wait_until(lambda: bool(served.usage.events))
    kept = await served.post(PATH, body(picture("red", *LARGE)))
    assert kept.status == 429  # nobody can stop the thread that looks at it
    runner.may_end.set()
    await served.wait_until(lambda: served.server.models.find_ready("test-model").num_open == 0)


async def be_refused(served: Serving, _: SeeingRunner) -> None:
    """After decoding."""
    assert (await served.post(PATH, body(picture("red", *LARGE), max_tokens=1))).status == 429


async def send_damage(served: Serving, _: SeeingRunner) -> None:
    """Behind a header that is whole."""
    half = (LARGE[0], LARGE[1] // 2)
    response = await served.post(PATH, body(picture("red", *half), picture("red", *half, cut=30)))
    assert response.status == 400


async def be_blind(served: Serving, runner: SeeingRunner) -> None:
    """A model that sees something else than it said: its second picture is not looked at."""
    half = (LARGE[0], LARGE[1] // 2)
    runner.num_unseen = 1
    assert (
        await served.post(PATH, body(picture("red", *half), picture("red", *half)))
    ).status == 502
    runner.num_unseen = 0


async def count_tokens(served: Serving, _: SeeingRunner) -> None:
    """Decoded, and shown to nobody."""
    url = picture("red", *LARGE)["image_url"]["url"]
    source = {"type": "base64", "media_type": "image/png", "data": url.partition(",")[2]}
    message = {"role": "user", "content": [{"type": "image", "source": source}]}
    chat = {"model": "test-model", "messages": [message]}
    assert (await served.post("/v1/messages/count_tokens", chat)).status == 200


@pytest.mark.parametrize(
    "end", [leave_during_a_look, be_refused, send_damage, be_blind, count_tokens]
)
async def test_memory_comes_back_however_a_request_ends(tmp_path: Path, end: Any) -> None:
    """All of it: the next request needs no less."""
    async with seeing(tmp_path, plugins=(Doorkeeper(),), **ONE) as (served, runner):
        await end(served, runner)
        assert (await served.post(PATH, body(picture("red", *LARGE)))).status == 200
