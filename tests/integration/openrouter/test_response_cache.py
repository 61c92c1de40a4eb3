"""Repeated answers: the same text under a new id, for nothing, and never by accident."""

from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import orjson
import pytest

from provider_core import hookimpl
from provider_core.errors import StepFailed
from provider_core.testing import ScriptedRunner
from provider_core.types import ModelSpec, Principal
from tests.serving import Serving, saying, scripted_runner, serving

ON = {"X-OpenRouter-Cache": "true"}
ENABLED = {"max_bytes": 2**20}


@pytest.fixture
async def served() -> AsyncIterator[Serving]:
    """A server that keeps answers."""
    async with serving(saying("Hello!"), response_cache=ENABLED) as running:
        yield running


async def chat(served: Serving, base: str = "/api/v1", **options: Any) -> aiohttp.ClientResponse:
    """A chat whose answer may be repeated."""
    headers = {**ON, **options.pop("headers", {})}
    body = {"model": "test-model", "messages": [{"role": "user", "content": "hi"}], **options}
    return await served.post(f"{base}/chat/completions", body, headers=headers)


def status_of(reply: aiohttp.ClientResponse) -> str | None:
    """HIT, MISS or nothing."""
    return reply.headers.get("X-OpenRouter-Cache-Status")


@pytest.mark.parametrize("base", ["/v1", "/api/v1"])
async def test_the_same_question_gets_the_same_answer_for_nothing(
    served: Serving, base: str
) -> None:
    """A new id and no usage; the headers say where it came from."""
    first, second = await chat(served, base), await chat(served, base)
    asked, repeated = await first.json(), await second.json()

    assert (status_of(first), status_of(second)) == ("MISS", "HIT")
    assert repeated["choices"] == asked["choices"]
    assert repeated["id"] == second.headers["X-Generation-Id"] != asked["id"]
    assert second.headers["X-OpenRouter-Cache-Source-Id"] == asked["id"]
    assert first.headers["X-OpenRouter-Cache-TTL"] == "300"
    counts = [repeated["usage"][f"{kind}_tokens"] for kind in ("prompt", "completion", "total")]
    assert counts == [0, 0, 0]


async def test_a_repeated_answer_has_an_event_and_no_bill(served: Serving) -> None:
    """R12, and it can be looked up."""
    first = await chat(served)
    second = await chat(served)
    _, event = served.usage.events
    path = f"/api/v1/generation?id={second.headers['X-Generation-Id']}"
    async with served.session.get(served.url + path) as response:
        found = (await response.json())["data"]

    assert (event["billing_rule"], event["cost"], event["total_tokens"]) == ("R12", "0", 0)
    assert event["response_cache_source_id"] == first.headers["X-Generation-Id"]
    assert found["response_cache_source_id"] == first.headers["X-Generation-Id"]
    assert found["total_cost"] == 0


async def test_a_stream_is_repeated_chunk_by_chunk(served: Serving) -> None:
    """Only the id, the time and the usage differ."""
    options: dict[str, Any] = {"stream": True, "stream_options": {"include_usage": True}}
    replies = [await chat(served, **options) for _ in range(2)]
    bodies = [(await reply.text()).split("\n\n") for reply in replies]
    first, second = (
        [orjson.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: {")]
        for lines in bodies
    )

    assert [status_of(reply) for reply in replies] == ["MISS", "HIT"]
    assert [chunk["choices"] for chunk in first] == [chunk["choices"] for chunk in second]
    assert {chunk["id"] for chunk in second} == {replies[1].headers["X-Generation-Id"]}
    assert (first[-1]["usage"]["total_tokens"] > 0, second[-1]["usage"]["total_tokens"]) == (
        True,
        0,
    )
    assert bodies[1][-2:] == ["data: [DONE]", ""]


@pytest.mark.parametrize(
    "other",
    [
        {"temperature": 1.0},
        {"stream": True},
        {"messages": [{"role": "user", "content": "hi "}]},
    ],
)
async def test_another_question_is_another(served: Serving, other: dict[str, Any]) -> None:
    """A default that is spelled out counts as one, as in OpenRouter's cache."""
    await chat(served)

    assert status_of(await chat(served, **other)) == "MISS"


async def test_the_order_of_properties_counts_and_spaces_do_not(served: Serving) -> None:
    """As documented there."""
    url = served.url + "/api/v1/completions"
    headers = {**ON, "Content-Type": "application/json"}
    found = []
    for body in (
        '{"model":"test-model","prompt":"a"}',
        '{ "model": "test-model",\n "prompt": "a"}',
        '{"prompt":"a","model":"test-model"}',
    ):
        async with served.session.post(url, data=body, headers=headers) as reply:
            found.append(status_of(reply))

    assert found == ["MISS", "HIT", "MISS"]


class TwoKeys:
    """Whoever comes is whom the header says."""

    @hookimpl(tryfirst=True)
    def authenticate(self, headers: Any, query: Any) -> Principal:
        """Two keys of one account."""
        return Principal(api_key_id=headers["X-Who"], account_id="acme")


async def test_keys_share_nothing() -> None:
    """Not even those of one account."""
    async with serving(response_cache=ENABLED, plugins=(TwoKeys(),)) as served:
        found = [status_of(await chat(served, headers={"X-Who": who})) for who in "aabb"]

    assert found == ["MISS", "HIT", "MISS", "HIT"]


async def test_an_answer_can_be_made_anew(served: Serving) -> None:
    """And is kept in the place of the old one."""
    first = await chat(served)
    fresh = await chat(served, headers={"X-OpenRouter-Cache-Clear": "true"})
    again = await chat(served)

    assert [status_of(reply) for reply in (first, fresh, again)] == ["MISS", "MISS", "HIT"]
    assert again.headers["X-OpenRouter-Cache-Source-Id"] == fresh.headers["X-Generation-Id"]


async def test_a_model_that_is_loaded_anew_repeats_nothing() -> None:
    """Not of the weights before it; its own answers are."""
    loads = iter([saying("old"), saying("new")])

    def load_next(spec: ModelSpec) -> ScriptedRunner:
        return next(loads)(spec)

    async with serving(load_next, response_cache=ENABLED) as served:
        replies = [await chat(served), await chat(served)]
        [spec] = served.server.models.specs
        await served.server.models.remove(spec.id)
        await served.server.models.load(spec)
        replies += [await chat(served), await chat(served)]
        said = [(await reply.json())["choices"][0]["message"]["content"] for reply in replies]

    assert said == ["old", "old", "new", "new"]
    assert [status_of(reply) for reply in replies] == ["MISS", "HIT", "MISS", "HIT"]


@pytest.mark.parametrize("headers", [{"X-OpenRouter-Cache": "false"}, {"X-OpenRouter-Cache": ""}])
async def test_nothing_is_kept_unless_it_is_asked_for(
    served: Serving, headers: dict[str, str]
) -> None:
    """Nor is anything said of a cache."""
    for _ in range(2):
        assert status_of(await chat(served, headers=headers)) is None
    assert {event["billing_rule"] for event in served.usage.events} == {"R1"}


async def test_a_server_that_keeps_nothing_says_nothing() -> None:
    """It is off by default."""
    async with serving() as served:
        replies = [await chat(served) for _ in range(2)]

    assert [status_of(reply) for reply in replies] == [None, None]


async def test_a_failure_is_not_kept() -> None:
    """The next one runs."""
    make = scripted_runner(failures={0: StepFailed("no")})
    async with serving(make, response_cache=ENABLED) as served:
        failed = await chat(served, max_tokens=3)
        second = await chat(served, max_tokens=3)

    assert failed.status >= 500
    assert status_of(failed) is None
    assert (second.status, status_of(second)) == (200, "MISS")


async def test_several_choices_are_repeated_together(served: Serving) -> None:
    """Each under its index."""
    replies = [await (await chat(served, n=3)).json() for _ in range(2)]

    assert [choice["index"] for choice in replies[1]["choices"]] == [0, 1, 2]
    assert replies[0]["choices"] == replies[1]["choices"]


async def test_every_route_has_answers_of_its_own(served: Serving) -> None:
    """Anthropic's clients have theirs in their own form."""
    body = {
        "model": "test-model",
        "max_tokens": 20,
        "messages": [{"role": "user", "content": "hi"}],
    }
    replies = [await served.post("/api/v1/messages", body, headers=ON) for _ in range(2)]
    first, second = [await reply.json() for reply in replies]
    other = await served.post("/api/v1/chat/completions", body, headers=ON)

    assert [status_of(reply) for reply in (*replies, other)] == ["MISS", "HIT", "MISS"]
    assert first["content"] == second["content"]
    assert first["id"] != second["id"]
    assert (second["usage"]["input_tokens"], second["usage"]["output_tokens"]) == (0, 0)
