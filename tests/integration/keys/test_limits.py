"""Rate limits over HTTP: who is refused, in which words, and what the headers say."""

import asyncio
import json
from typing import Any

import pytest

from provider_core.dialects.rate_headers import go_duration
from tests.serving import saying, serving

MESSAGES = [{"role": "user", "content": "hi"}]
CHAT = {"model": "test-model", "messages": MESSAGES, "max_tokens": 10}
CHATS = {
    "openai": ("/v1/chat/completions", CHAT),
    "openrouter": ("/api/v1/chat/completions", CHAT),
    "anthropic": ("/v1/messages", CHAT),
    "google": (
        "/v1beta/models/test-model:generateContent",
        {"contents": [{"role": "user", "parts": [{"text": "hi"}]}]},
    ),
}


def limits_of(headers: Any) -> dict[str, str]:
    """What an answer says of limits."""
    return {name.lower(): value for name, value in headers.items() if "ratelimit" in name.lower()}


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (0.012, "12ms"),
        (1, "1s"),
        (1.5, "1.5s"),
        (59.9996, "1m0s"),
        (360, "6m0s"),
        (3661.25, "1h1m1.25s"),
        (86400, "24h0m0s"),
    ],
)
def test_durations_are_gos(seconds: float, text: str) -> None:
    """`time.Duration` writes them so, and clients parse that."""
    assert go_duration(seconds) == text


@pytest.mark.parametrize("stream", [False, True])
async def test_every_answer_says_how_limits_stand(stream: bool) -> None:  # noqa: FBT001
    """Streams before they have ended, too."""
    async with serving(limits={"requests_per_day": 60, "tokens_per_minute": 600}) as server:
        answer = await server.post("/v1/chat/completions", {**CHAT, "stream": stream})
    said = limits_of(answer.headers)
    resets = said.pop("x-ratelimit-reset-requests"), said.pop("x-ratelimit-reset-tokens")
    tokens = int(said.pop("x-ratelimit-remaining-tokens"))
    assert said == {
        "x-ratelimit-limit-requests": "60",
        "x-ratelimit-remaining-requests": "59",
        "x-ratelimit-limit-tokens": "600",
    }
    assert resets[0].startswith(("23m", "24m0s"))  # a 60th of a day, less what has passed
    assert 500 < tokens < 600
    assert resets[1].endswith("s")


async def test_without_limits_nothing_is_said() -> None:
    """An invented number would be a promise."""
    async with serving() as server:
        assert limits_of((await server.chat()).headers) == {}


async def test_refusals_say_so_in_each_dialect() -> None:
    """Status 429 everywhere, with the delay, and nothing billed."""
    found = {}
    for dialect, (path, body) in CHATS.items():
        async with serving(limits={"requests_per_day": 1}) as server:
            assert (await server.post(path, body)).status == 200
            answer = await server.post(path, body)
            found[dialect] = (answer.status, limits_of(answer.headers), await answer.json())
            assert 0 < int(answer.headers["Retry-After"]) <= 86400
            assert int(answer.headers["retry-after-ms"]) <= 86_400_000
            assert len(server.usage.events) == 1
    assert {status for status, _, _ in found.values()} == {429}
    error = found["openai"][2]["error"]
    assert (error["type"], error["code"], error["param"]) == (
        "requests",
        "rate_limit_exceeded",
        None,
    )
    assert "try again in" in error["message"]
    assert found["openai"][1]["x-ratelimit-remaining-requests"] == "0"
    assert found["openai"][1]["x-ratelimit-reset-requests"].startswith(("23h", "24h"))
    assert found["openrouter"][2]["error"]["code"] == 429
    assert set(found["openrouter"][1]) == {
        "x-ratelimit-limit",
        "x-ratelimit-remaining",
        "x-ratelimit-reset",
    }
    assert found["anthropic"][2]["error"]["type"] == "rate_limit_error"
    assert found["anthropic"][1]["anthropic-ratelimit-requests-remaining"] == "0"
    assert found["google"][2]["error"]["status"] == "RESOURCE_EXHAUSTED"
    assert found["google"][1] == {}


async def test_openrouter_hears_of_limits_when_it_is_refused_only() -> None:
    """As its own API does it."""
    async with serving(limits={"requests_per_day": 5}) as server:
        path, body = CHATS["openrouter"]
        assert limits_of((await server.post(path, body)).headers) == {}


async def test_anthropic_says_when_limits_are_full() -> None:
    """On success, as times."""
    async with serving(limits={"requests_per_day": 5}) as server:
        path, body = CHATS["anthropic"]
        said = limits_of((await server.post(path, body)).headers)
    assert said.pop("anthropic-ratelimit-requests-reset").endswith("Z")
    assert said == {
        "anthropic-ratelimit-requests-limit": "5",
        "anthropic-ratelimit-requests-remaining": "4",
    }


async def test_tokens_are_limited_too() -> None:
    """Prompt and reply together, corrected when they are known."""
    async with serving(limits={"tokens_per_minute": 60}) as server:
        first = await server.chat(max_tokens=10)
        assert first.status == 200
        used = (await first.json())["usage"]["total_tokens"]
        second = await server.chat("a prompt of more than sixty tokens, " * 3, max_tokens=10)
        error = (await second.json())["error"]
    assert second.status == 429
    assert (error["type"], error["code"]) == ("tokens", "rate_limit_exceeded")
    remaining = int(second.headers["x-ratelimit-remaining-tokens"])
    assert 60 - used <= remaining <= 60 - used + 30


@pytest.mark.parametrize("dialect", CHATS)
async def test_a_prompt_that_never_fits_is_refused_for_good(dialect: str) -> None:
    """A request of more tokens than a minute's is not let in once, and clients do not try again."""
    path, body = CHATS[dialect]
    async with serving(limits={"tokens_per_minute": 4}) as server:
        answer = await server.post(path, body)
        assert server.usage.lines == []
    assert answer.status == 429
    assert answer.headers["x-should-retry"] == "false"
    assert "Retry-After" not in answer.headers
    assert "more than the limit of 4 tokens per minute" in await answer.text()


async def test_a_models_own_limits_hold() -> None:
    """Beside those of the key."""
    async with serving(
        limits={"requests_per_minute": 100}, model_limits={"requests_per_day": 1}
    ) as server:
        assert (await server.chat()).status == 200
        refused = await server.chat()
        assert (await refused.json())["error"]["message"].startswith("the limit of 1 requests")


async def test_requests_at_the_same_time_are_limited() -> None:
    """And the next one is let in as soon as one has ended, also when its client has left."""
    slow = saying("Hello!" * 50, step_time_s=0.02)
    async with serving(slow, limits={"concurrent_requests": 1}) as server:
        url = f"{server.url}/v1/chat/completions"
        body = {**CHAT, "max_tokens": 300, "stream": True}
        async with server.session.post(url, json=body) as running:
            await running.content.readany()
            refused = await server.chat()
            assert refused.status == 429
            assert (await refused.json())["error"]["code"] == "concurrency_limit"
            running.close()
        await server.settled()
        assert (await server.chat(max_tokens=1)).status == 200


async def test_limits_of_a_key_hold_for_it_alone() -> None:
    """Keys without limits of their own go on."""
    async with serving() as server:
        keys = server.server.keys
        assert keys is not None
        _, secret = await keys.create(requests_per_day=1)
        options = {"headers": {"Authorization": f"Bearer {secret}"}}
        statuses = [
            (await server.post("/v1/chat/completions", CHAT, **options)).status for _ in range(2)
        ]
        assert statuses == [200, 429]
        assert (await server.chat()).status == 200


async def test_repeated_answers_are_not_counted() -> None:
    """They cost nothing."""
    options = {"headers": {"X-OpenRouter-Cache": "true"}}
    async with serving(
        limits={"requests_per_day": 2}, response_cache={"max_bytes": 10**6}
    ) as server:
        for _ in range(5):
            answer = await server.post("/api/v1/chat/completions", CHAT, **options)
            assert answer.status == 200


async def test_wrong_keys_are_slowed_down_and_right_ones_are_not() -> None:
    """A15."""
    async with serving(access={"failed_keys_per_minute": 3}) as server:
        wrong = {"headers": {"Authorization": "Bearer a-wrong-key"}}
        statuses = [
            (await server.post("/v1/chat/completions", CHAT, **wrong)).status for _ in range(5)
        ]
        assert statuses == [401, 401, 401, 429, 429]
        assert (await server.chat()).status == 200


async def test_racing_requests_never_pass_a_limit() -> None:
    """Sixty-four at once, for three."""
    async with serving(limits={"requests_per_day": 3}) as server:
        answers = await asyncio.gather(*(server.chat(max_tokens=1) for _ in range(64)))
        assert sorted(answer.status for answer in answers) == [200] * 3 + [429] * 61
        await server.settled()
        assert json.loads(server.usage.lines[-1])["seq"] == 3
