"""R17 over HTTP: one answer, one bill, for whoever asks twice under one key."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from functools import partial
from typing import Any, cast

import aiohttp
import openai
import pytest

from provider_core.errors import StepFailed
from provider_core.testing import ScriptedEncoder
from tests.integration.keys.test_credits import add, make_key
from tests.integration.keys.test_limits import CHATS
from tests.pause import Pause
from tests.serving import KEY, Serving, saying, serving

NAMED = {"Idempotency-Key": "order-7f3a"}
BODY: dict[str, Any] = {"model": "test-model", "prompt": "abc", "max_tokens": 8}


@pytest.fixture
async def served() -> AsyncIterator[Serving]:
    """A server with default settings, and a journal."""
    async with serving(saying("Hello!"), journal={"min_free_bytes": 0}) as running:
        yield running


async def complete(served: Serving, **options: Any) -> aiohttp.ClientResponse:
    """A completion under a key."""
    headers = options.pop("headers", NAMED)
    return await served.post("/v1/completions", {**BODY, **options}, headers=headers)


async def code_of(response: aiohttp.ClientResponse) -> tuple[int, str]:
    """Status and code of a refusal."""
    return response.status, (await response.json())["error"]["code"]


def num_finals(served: Serving) -> int:
    """Bills in the log."""
    return sum(event["event"] == "usage.final" for event in served.usage.events)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("dialect", CHATS)
async def test_r17_an_answer_is_given_again_and_billed_once(
    served: Serving, dialect: str, *, stream: bool
) -> None:
    """To the byte, under the same id, in every dialect; W5 of the bad inputs."""
    path, body = CHATS[dialect][0], cast(dict[str, Any], CHATS[dialect][1])
    if dialect == "google":
        path = path.replace("generateContent", "streamGenerateContent") if stream else path
    elif stream:
        body = {**body, "stream": True}
    replies = [await served.post(path, body, headers=NAMED) for _ in range(4)]
    texts = {await reply.text() for reply in replies}
    ids = {reply.headers["X-Generation-Id"] for reply in replies}
    await served.wait_until(lambda: num_finals(served) > 0)

    assert {reply.status for reply in replies} == {200}
    assert (len(texts), len(ids)) == (1, 1)
    assert [reply.headers.get("Idempotent-Replayed") for reply in replies] == [None] + 3 * ["true"]
    assert len({reply.headers["Content-Type"] for reply in replies}) == 1
    assert len({reply.headers["X-Request-Id"] for reply in replies}) == 4
    (event,) = served.usage.events
    assert {event["generation_id"]} == ids
    assert len(event["idempotency_key_sha256"]) == 64


async def test_other_requests_and_keys_are_others(served: Serving) -> None:
    """Another body under a key is refused; another API key has keys of its own."""
    await complete(served)
    refused = await complete(served, prompt="abc again")
    assert await code_of(refused) == (409, "idempotency_conflict")
    assert refused.headers["x-should-retry"] == "false"
    assert await code_of(await complete(served, stream=True)) == (409, "idempotency_conflict")

    stranger = await make_key(served)
    for headers in (stranger["headers"] | NAMED, {"Idempotency-Key": "another"}, {}):
        answer = await complete(served, headers=headers)
        assert (answer.status, answer.headers.get("Idempotent-Replayed")) == (200, None)
    assert (await complete(served, headers={"Idempotency-Key": "a b"})).status == 400
    await served.wait_until(lambda: num_finals(served) == 4)


async def test_p25_while_the_first_runs_the_second_is_told_so() -> None:
    """And gets the answer when it comes back, as every client library does."""
    pause = Pause(1)
    async with serving(saying("Hello!", on_execute=pause)) as served:
        first = asyncio.create_task(complete(served))
        await served.wait_until(lambda: bool(served.server.dispatcher.runs))
        second = await complete(served)
        assert await code_of(second) == (409, "idempotency_in_progress")
        assert second.headers["Retry-After"] == "1"
        assert await code_of(await complete(served, n=2)) == (409, "idempotency_conflict")
        pause.may_go_on.set()
        answered = await (await first).text()
        assert await (await complete(served)).text() == answered
        assert len(served.usage.lines) == 1


class Impatient(openai.AsyncOpenAI):
    """The package's client, which comes back at once, and notes that it does."""

    num_retries = 0

    def _calculate_retry_timeout(self, *_args: Any, **_options: Any) -> float:
        self.num_retries += 1
        return 0.01


async def test_a_published_client_comes_back_by_itself_and_not_for_a_conflict() -> None:
    """OpenAI's retries a 409, unless it is told that there is no use."""
    pause = Pause(1)
    async with (
        serving(saying("Hello!", on_execute=pause)) as served,
        Impatient(api_key=KEY, base_url=f"{served.url}/v1", max_retries=500) as client,
    ):
        make = partial(client.completions.create, **BODY, extra_headers=NAMED)
        first = asyncio.create_task(make())
        await served.wait_until(lambda: bool(served.server.dispatcher.runs))
        second = asyncio.create_task(make())
        await served.wait_until(lambda: client.num_retries > 0)
        pause.may_go_on.set()
        assert (await first).id == (await second).id
        client.num_retries = 0
        with pytest.raises(openai.ConflictError, match="another request"):
            await make(n=2)
        assert client.num_retries == 0
        assert len(served.usage.lines) == 1


async def test_a_failure_is_not_kept() -> None:
    """The repetition runs; the failure cost nothing."""
    failures = [StepFailed("once")]

    def fail(_: object) -> None:
        if failures:
            raise failures.pop()

    async with serving(saying("Hello!", on_execute=fail)) as served:
        replies = [await complete(served) for _ in range(3)]
        assert [reply.status for reply in replies] == [502, 200, 200]
        assert [event["billing_rule"] for event in served.usage.events] == ["R6", "R1"]


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_left_is_answered_anew(*, stream: bool) -> None:
    """Of a whole answer it got nothing and pays nothing; of a stream, what it got."""
    pause = Pause(3)
    async with serving(saying("Hello!", on_execute=pause)) as served:
        leaving = asyncio.create_task(complete(served, stream=stream))
        await served.wait_until(lambda: pause.is_waiting)
        leaving.cancel()
        with suppress(asyncio.CancelledError):
            await leaving
        await served.wait_until(lambda: len(served.usage.lines) == 1)
        pause.may_go_on.set()
        again = await complete(served, stream=stream)
        assert (again.status, again.headers.get("Idempotent-Replayed")) == (200, None)
        rules = [event["billing_rule"] for event in served.usage.events]
    assert rules == (["R3", "R1"] if stream else ["R5", "R1"])


async def test_a_repetition_takes_no_credit_and_no_tokens() -> None:
    """An account that could not pay twice asks three times."""
    async with serving(limits={"tokens_per_minute": 1000}) as served:
        options = await make_key(served, account_id="acme")
        await add(served, "0.00003")
        headers = options["headers"] | NAMED
        replies = [await complete(served, headers=headers) for _ in range(3)]
        assert [reply.status for reply in replies] == [200] * 3
        left = {reply.headers["x-ratelimit-remaining-tokens"] for reply in replies[1:]}
        assert len(left) == 1
        assert (await complete(served, headers=options["headers"])).status == 429


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/embeddings", {"model": "test-model", "input": "abc"}),
        ("/v1beta/models/test-model:embedContent", {"content": {"parts": [{"text": "abc"}]}}),
    ],
)
async def test_vectors_are_given_again(path: str, body: dict[str, Any]) -> None:
    """Encoders' answers are kept like all others."""
    async with serving(
        lambda spec: ScriptedEncoder(embedding_size=4, max_model_len=spec.max_model_len)
    ) as served:
        replies = [await served.post(path, body, headers=NAMED) for _ in range(2)]
        assert [reply.status for reply in replies] == [200, 200]
        assert replies[1].headers["Idempotent-Replayed"] == "true"
        assert await replies[0].read() == await replies[1].read()
        assert len(served.usage.lines) == 1


async def test_a_refusal_is_not_kept(served: Serving) -> None:
    """Whatever was wrong may be right the next time, under the same key."""
    for model, status in (("nobody", 404), ("test-model", 200)):
        assert (await complete(served, model=model)).status == status


async def test_an_answer_from_the_response_cache_is_kept() -> None:
    """Its bill of nothing comes once."""
    headers = NAMED | {"X-OpenRouter-Cache": "true"}
    async with serving(response_cache={"max_bytes": 2**20}) as served:
        await complete(served, headers={"X-OpenRouter-Cache": "true"})
        replies = [await complete(served, headers=headers) for _ in range(2)]
        assert [reply.headers.get("Idempotent-Replayed") for reply in replies] == [None, "true"]
        assert [event["billing_rule"] for event in served.usage.events] == ["R1", "R12"]


async def test_the_header_can_be_ignored() -> None:
    """By a setting; the bill still tells which requests belong together."""
    async with serving(idempotency={"max_keys": 0}) as served:
        for _ in range(2):
            assert (await complete(served)).headers.get("Idempotent-Replayed") is None
        digests = {event["idempotency_key_sha256"] for event in served.usage.events}
    assert len(digests) == 1
    assert None not in digests
