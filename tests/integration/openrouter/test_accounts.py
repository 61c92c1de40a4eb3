"""What a key may know of itself: its generations and what they cost, from a real server."""

from pathlib import Path
from typing import Any

import aiohttp
import pytest

from provider_core import hookimpl
from provider_core.errors import StepFailed
from provider_core.types import Principal
from tests.serving import Serving, saying, scripted_runner, serving


class KeysByName:
    """Lets in whoever names itself, with an account if there is one behind a slash."""

    @hookimpl(tryfirst=True)
    def authenticate(self, headers: Any, query: Any) -> Principal:
        """`Bearer key/account`."""
        key, _, account = headers["Authorization"].removeprefix("Bearer ").partition("/")
        return Principal(api_key_id=key, account_id=account or None, label=f"the key {key}")


def caller(name: str) -> dict[str, Any]:
    """Options of a request."""
    return {"headers": {"Authorization": f"Bearer {name}"}}


async def get(served: Serving, path: str, **options: Any) -> tuple[int, Any]:
    """Status and body."""
    async with served.session.get(served.url + path, **options) as response:
        return response.status, await response.json()


@pytest.mark.parametrize("stream", [False, True])
async def test_a_generation_is_looked_up_as_soon_as_its_answer_is_there(*, stream: bool) -> None:
    """By query or by path; the numbers are those of the answer and of the bill."""
    async with serving(saying("Hello!"), provider={"name": "Acme"}) as served:
        reply = await served.post(
            "/v1/chat/completions",
            {
                "model": "test-model",
                "messages": [{"role": "user", "content": "hi"}],
                "stream": stream,
                "user": "u1",
                "session_id": "s1",
            },
            headers={"HTTP-Referer": "https://a.example", "X-Session-Id": "s2"},
        )
        generation_id = reply.headers["X-Generation-Id"]
        _, by_query = await get(served, f"/api/v1/generation?id={generation_id}")
        _, by_path = await get(served, f"/api/v1/generation/{generation_id}")
        (event,) = served.usage.events
    data = by_query["data"]

    assert by_query == by_path
    assert data["id"] == generation_id
    assert (data["model"], data["provider_name"]) == ("test-model", "Acme")
    assert (data["streamed"], data["cancelled"]) == (stream, False)
    assert data["tokens_prompt"] == data["native_tokens_prompt"] == event["prompt_tokens"]
    assert data["tokens_completion"] == 7
    assert str(data["total_cost"]) == str(data["usage"]) == str(float(event["cost"]))
    assert data["finish_reason"] == "stop"
    assert (data["external_user"], data["session_id"]) == ("u1", "s1")
    assert data["http_referer"] == "https://a.example"
    assert (data["latency"], data["generation_time"]) == (event["ttft_ms"], event["generation_ms"])


REQUIRED = {
    "upstream_inference_cost",
    "upstream_id",
    "tokens_completion",
    "id",
    "provider_responses",
    "http_referer",
    "provider_name",
    "external_user",
    "streamed",
    "model",
    "web_search_engine",
    "service_tier",
    "num_fetches",
    "num_input_audio_prompt",
    "router",
    "num_media_prompt",
    "is_byok",
    "data_region",
    "workspace_id",
    "tokens_prompt",
    "created_at",
    "native_finish_reason",
    "preset_id",
    "num_media_completion",
    "native_tokens_cached",
    "cache_discount",
    "native_tokens_reasoning",
    "native_tokens_prompt",
    "finish_reason",
    "api_type",
    "origin",
    "app_id",
    "cancelled",
    "native_tokens_completion",
    "num_search_results",
    "usage",
    "user_agent",
    "generation_time",
    "latency",
    "native_tokens_completion_images",
    "moderation_latency",
    "total_cost",
}


async def test_every_field_that_openrouters_libraries_require_is_there() -> None:
    """They validate what they read."""
    async with serving() as served:
        reply = await served.chat()
        _, found = await get(served, f"/api/v1/generation?id={(await reply.json())['id']}")

    assert REQUIRED - found["data"].keys() == set()


@pytest.mark.parametrize(
    ("name", "status"),
    [("k1", 200), ("k1/acme", 200), ("k2/acme", 200), ("k2", 404), ("k2/other", 404)],
)
async def test_a_generation_is_for_its_key_and_its_account(name: str, status: int) -> None:
    """For all others it does not exist."""
    async with serving(plugins=(KeysByName(),)) as served:
        messages = [{"role": "user", "content": "hi"}]
        reply = await served.post(
            "/v1/chat/completions",
            {"model": "test-model", "messages": messages},
            **caller("k1/acme"),
        )
        path = f"/api/v1/generation?id={reply.headers['X-Generation-Id']}"
        found, body = await get(served, path, **caller(name))

    assert found == status
    if status == 404:
        assert body["error"]["metadata"]["error_type"] == "not_found"


async def test_a_lookup_without_a_key_or_an_id_is_refused() -> None:
    """401 before anything is looked at; 400 names the parameter."""
    async with serving() as served:
        missing, answer = await get(served, "/api/v1/generation")
        unknown, _ = await get(served, "/api/v1/generation/gen-0")
        async with (
            aiohttp.ClientSession() as nobody,
            nobody.get(served.url + "/api/v1/generation?id=x") as response,
        ):
            stranger = response.status

    assert (missing, unknown, stranger) == (400, 404, 401)
    assert answer["error"]["metadata"]["param"] == "id"


async def test_a_failed_generation_costs_nothing() -> None:
    """It can be looked up all the same."""
    async with serving(scripted_runner(failures={0: StepFailed("no")})) as served:
        reply = await served.chat()
        generation_id = served.usage.events[0]["generation_id"]
        _, found = await get(served, f"/api/v1/generation?id={generation_id}")

    assert reply.status >= 500
    assert found["data"]["total_cost"] == 0


@pytest.mark.parametrize("path", ["/api/v1/key", "/api/v1/auth/key"])
async def test_a_key_knows_what_it_has_spent(path: str) -> None:
    """In all, and today; nothing limits it."""
    async with serving(plugins=(KeysByName(),)) as served:
        for name in ("k1", "k1", "k2"):
            await served.post(
                "/v1/completions", {"model": "test-model", "prompt": "hi"}, **caller(name)
            )
        _, answer = await get(served, path, **caller("k1"))
        costs = [float(event["cost"]) for event in served.usage.events]
    data = answer["data"]

    assert data["label"] == "the key k1"
    assert data["limit"] is data["limit_remaining"] is None
    assert data["usage"] == data["usage_monthly"] == pytest.approx(costs[0] + costs[1])
    assert data["rate_limit"].keys() == {"requests", "interval", "note"}


async def test_credits_and_activity_are_of_the_account() -> None:
    """Whole days only: today's requests come tomorrow."""
    async with serving(plugins=(KeysByName(),)) as served:
        for name in ("k1/acme", "k2/acme", "k3"):
            await served.post(
                "/v1/completions", {"model": "test-model", "prompt": "hi"}, **caller(name)
            )
        _, credit = await get(served, "/api/v1/credits", **caller("k1/acme"))
        _, activity = await get(served, "/api/v1/activity", **caller("k1/acme"))
        cost = float(served.usage.events[0]["cost"])

    assert credit["data"]["total_credits"] == 0
    assert credit["data"]["total_usage"] == pytest.approx(2 * cost)
    assert activity == {"data": []}


@pytest.mark.parametrize("day", ["yesterday", "2020-01-01", "2026-02-30", "2999-01-01"])
async def test_activity_of_a_day_that_is_not_kept_is_refused(day: str) -> None:
    """Thirty days, in one spelling."""
    async with serving() as served:
        status, answer = await get(served, f"/api/v1/activity?date={day}")

    assert status == 400
    assert answer["error"]["metadata"]["param"] == "date"


async def test_a_ledger_that_is_lost_is_made_again_from_the_journal(tmp_path: Path) -> None:
    """As far as the journal reaches; what was taken back stays taken back."""
    settings: dict[str, Any] = {
        "data_dir": tmp_path,
        "journal": {"enabled": True, "min_free_bytes": 0},
    }
    async with serving(**settings) as served:
        generation_id = (await served.chat()).headers["X-Generation-Id"]
        path = f"/api/v1/generation?id={generation_id}"
        _, before = await get(served, path)
        _, spent = await get(served, "/api/v1/key")
    (tmp_path / "ledger.sqlite").unlink()
    for _ in range(2):  # the second start adds nothing
        async with serving(**settings) as served:
            status, after = await get(served, path)
            while status == 404:  # the journal is read behind the server's back
                status, after = await get(served, path)
            assert after == before
            assert (await get(served, "/api/v1/key"))[1] == spent


async def test_without_a_ledger_nothing_can_be_looked_up() -> None:
    """A setting switches it off."""
    async with serving(ledger={"enabled": False}) as served:
        reply = await served.chat()
        status, _ = await get(served, "/api/v1/generation?id=gen-1")

    assert (reply.status, status) == (200, 404)
