"""The google-genai package, unchanged, against the real server: only base URL and key differ."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import orjson
import pytest
from google import genai
from google.genai import errors, types
from yarl import URL

from tests.serving import KEY, Serving, saying, scripted_runner, serving

# The package subclasses aiohttp's session, which aiohttp discourages.
pytestmark = pytest.mark.filterwarnings("ignore:Inheritance class:DeprecationWarning")

BODY: dict[str, Any] = {"contents": [{"parts": [{"text": "hi"}]}]}


@pytest.fixture
async def served() -> AsyncIterator[Serving]:
    """A server that says "Hello!" to everything."""
    async with serving(saying("Hello!")) as running:
        yield running


@asynccontextmanager
async def client_of(
    served: Serving, *, key: str = KEY, version: str | None = None, **options: Any
) -> AsyncIterator[genai.client.AsyncClient]:
    """The SDK's client, as a user makes it."""
    http = types.HttpOptions(base_url=served.url, api_version=version, **options)
    client = genai.Client(api_key=key, http_options=http).aio
    try:
        yield client
    finally:
        await client.aclose()


async def ask(
    client: genai.client.AsyncClient, request: Any, *, stream: bool
) -> types.GenerateContentResponse:
    """An answer, or the last piece of one."""
    if not stream:
        return await client.models.generate_content(**request)
    return [piece async for piece in await client.models.generate_content_stream(**request)][-1]


@pytest.mark.parametrize("version", [None, "v1beta", "v1"])
@pytest.mark.parametrize("model", ["test-model", "models/test-model", "openai/gpt-test"])
async def test_a_whole_answer_has_text_reason_and_counts(
    served: Serving, model: str, version: str | None
) -> None:
    """Under every version of the path, and with a slash in the model's name."""
    async with client_of(served, version=version) as client:
        reply = await client.models.generate_content(model=model, contents="hi")
        counted = await client.models.count_tokens(model=model, contents="hi")

    assert reply.text == "Hello!"
    assert reply.candidates is not None
    assert reply.candidates[0].finish_reason == types.FinishReason.STOP
    assert reply.candidates[0].content is not None
    assert reply.candidates[0].content.role == "model"
    assert reply.usage_metadata is not None
    assert reply.usage_metadata.prompt_token_count == counted.total_tokens
    assert reply.usage_metadata.candidates_token_count == 7  # six bytes and the end
    assert reply.model_version == model.removeprefix("models/")
    (event,) = served.usage.events
    assert event["endpoint"] == "generate_content"
    assert event["generation_id"] == reply.response_id


async def test_a_stream_says_the_same(served: Serving) -> None:
    """The pieces joined are the whole; reason and counts come once, with the last."""
    async with client_of(served) as client:
        stream = await client.models.generate_content_stream(model="test-model", contents="hi")
        chunks = [chunk async for chunk in stream]
        whole = await client.models.generate_content(model="test-model", contents="hi")

    assert "".join(chunk.text or "" for chunk in chunks) == whole.text == "Hello!"
    assert [bool(chunk.usage_metadata) for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
    assert chunks[-1].usage_metadata == whole.usage_metadata
    assert chunks[-1].candidates is not None
    assert chunks[-1].candidates[0].finish_reason == types.FinishReason.STOP
    assert len({chunk.response_id for chunk in chunks}) == 1


async def test_a_chat_sends_its_streamed_turns_back() -> None:
    """The second prompt holds the first answer as it was, however many pieces it came in."""
    prompts = []
    runner = saying("Hello!", on_execute=lambda batch: prompts.append(batch.token_ids.copy()))
    async with serving(runner) as served, client_of(served) as client:
        chat = client.chats.create(
            model="test-model", config=types.GenerateContentConfig(system_instruction="be brief")
        )
        async for _ in await chat.send_message_stream("one"):
            pass
        prompts.clear()
        await chat.send_message("two")
        model = served.server.models.find_ready("test-model")
        prompt = model.tokenizer.decode(prompts[0][0].tolist())

    assert prompt == "system\nbe brief\nuser\none\nassistant\nHello!\nuser\ntwo\nassistant\n"


async def test_candidates_come_under_their_own_indexes(served: Serving) -> None:
    """As many as asked, streamed and whole, with the counts of all."""
    config = types.GenerateContentConfig(candidate_count=3, top_k=40, seed=-1)
    async with client_of(served) as client:
        whole = await client.models.generate_content(
            model="test-model", contents="hi", config=config
        )
        texts = ["", "", ""]
        async for chunk in await client.models.generate_content_stream(
            model="test-model", contents="hi", config=config
        ):
            for candidate in chunk.candidates or []:
                assert candidate.content is not None
                for part in candidate.content.parts or []:
                    texts[candidate.index or 0] += part.text or ""

    assert texts == ["Hello!"] * 3
    assert [candidate.index for candidate in whole.candidates or []] == [0, 1, 2]
    assert whole.usage_metadata is not None
    assert whole.usage_metadata.candidates_token_count == 21


async def test_logprobs_name_every_token(served: Serving) -> None:
    """The chosen ones and the likeliest, streamed and whole alike."""
    config = types.GenerateContentConfig(response_logprobs=True, logprobs=2)
    async with client_of(served) as client:
        whole = await client.models.generate_content(
            model="test-model", contents="hi", config=config
        )
        chunks = [
            chunk
            async for chunk in await client.models.generate_content_stream(
                model="test-model", contents="hi", config=config
            )
        ]
    assert whole.candidates is not None
    result = whole.candidates[0].logprobs_result
    assert result is not None
    chosen = result.chosen_candidates or []
    streamed = [
        entry
        for chunk in chunks
        for candidate in chunk.candidates or []
        if candidate.logprobs_result is not None
        for entry in candidate.logprobs_result.chosen_candidates or []
    ]
    assert streamed == chosen
    assert "".join(entry.token or "" for entry in chosen) == "Hello!"
    assert len(chosen) == 7
    assert all(len(top.candidates or []) == 2 for top in result.top_candidates or [])
    assert whole.candidates[0].avg_logprobs is not None


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"max_output_tokens": 3}, types.FinishReason.MAX_TOKENS),
        ({"stop_sequences": ["l"]}, types.FinishReason.STOP),
    ],
)
async def test_bug_05_every_end_has_its_reason(
    served: Serving, config: Any, reason: types.FinishReason
) -> None:
    """Streamed and whole alike."""
    async with client_of(served) as client:
        request: Any = {"model": "test-model", "contents": "hi", "config": config}
        replies = [await ask(client, request, stream=stream) for stream in (False, True)]
    for reply in replies:
        assert reply.candidates is not None
        assert reply.candidates[0].finish_reason == reason


async def test_a_seed_repeats_the_text() -> None:
    """The same seed gives the same text, another one another."""
    async with serving(scripted_runner()) as served, client_of(served) as client:
        texts = []
        for seed in (1, 1, 2):
            reply = await client.models.generate_content(
                model="test-model",
                contents="x",
                config=types.GenerateContentConfig(seed=seed, max_output_tokens=40),
            )
            texts.append(reply.text)
    assert texts[0] == texts[1]
    assert texts[0] != texts[2]


@pytest.mark.parametrize(
    ("options", "request_fields", "error", "code", "status"),
    [
        ({"key": "sk-wrong"}, {}, errors.ClientError, 401, "UNAUTHENTICATED"),
        ({}, {"model": "nobody"}, errors.ClientError, 404, "NOT_FOUND"),
        ({}, {"config": {"temperature": 3}}, errors.ClientError, 400, "INVALID_ARGUMENT"),
        ({}, {"contents": "a" * 3000}, errors.ClientError, 400, "INVALID_ARGUMENT"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_bug_11_errors_are_the_same_streamed_or_not(
    served: Serving,
    options: dict[str, Any],
    request_fields: dict[str, Any],
    error: type[errors.APIError],
    code: int,
    status: str,
    *,
    stream: bool,
) -> None:
    """The SDK raises the class of its status, with its name and a message."""
    request: Any = {"model": "test-model", "contents": "hi", **request_fields}
    async with client_of(served, **options) as client:
        with pytest.raises(error) as caught:
            await ask(client, request, stream=stream)
    assert (caught.value.code, caught.value.status) == (code, status)
    assert caught.value.message
    assert served.usage.events == []


async def test_a_body_that_is_too_large_is_a_413() -> None:
    """Before it is read."""
    async with serving(limits={"max_body_bytes": 1024}) as served, client_of(served) as client:
        with pytest.raises(errors.ClientError) as caught:
            await client.models.generate_content(model="test-model", contents="a" * 2000)
    assert (caught.value.code, caught.value.status) == (413, "INVALID_ARGUMENT")


async def test_models_are_listed_page_by_page(served: Serving) -> None:
    """Under both versions; one by name, alias, or resource name; an unknown one is not found."""
    for version in ("v1", "v1beta"):
        async with client_of(served, version=version) as client:
            pager = await client.models.list(config={"page_size": 1})
            models = [model async for model in pager]
            by_alias = await client.models.get(model="openai/gpt-test")
            with pytest.raises(errors.ClientError) as caught:
                await client.models.get(model="nobody")
        assert [model.name for model in models] == [by_alias.name] == ["models/test-model"]
        assert models[0].input_token_limit == 2048
        assert "generateContent" in (models[0].supported_actions or [])
        assert (caught.value.code, caught.value.status) == (404, "NOT_FOUND")


@pytest.mark.parametrize("name", ["openai/gpt-test", "openai%2Fgpt-test", "test-model"])
@pytest.mark.parametrize("colon", [":", "%3A"])
@pytest.mark.parametrize("version", ["v1", "v1beta"])
async def test_slashes_and_colons_in_a_path_may_be_raw_or_encoded(
    served: Serving, name: str, colon: str, version: str
) -> None:
    """The verb stands behind the last colon."""
    url = URL(f"{served.url}/{version}/models/{name}{colon}countTokens", encoded=True)
    async with served.session.post(url, json=BODY) as response:
        assert response.status == 200
        assert (await response.json())["totalTokens"] > 0


async def test_a_key_in_the_query_opens_these_paths_only_and_reaches_no_log(
    served: Serving, capfd: pytest.CaptureFixture[str]
) -> None:
    """Google's REST examples send it there."""
    served.session.headers.pop("Authorization")
    path = "/v1beta/models/test-model:generateContent"
    ok = await served.post(f"{path}?key={KEY}", BODY)
    listed = await served.session.get(f"{served.url}/v1beta/models?key={KEY}")
    wrong = await served.post(f"{path}?key={KEY}x", BODY)
    bad = await served.post(f"{path}?key={KEY}", {"contents": 5})
    missing = await served.post(f"/v1beta/models/test-model:nothing?key={KEY}", BODY)
    chat = {"model": "test-model", "messages": [{"role": "user", "content": "hi"}]}
    elsewhere = await served.post(f"/v1/chat/completions?key={KEY}", chat)
    models = await served.session.get(f"{served.url}/v1/models?key={KEY}")

    statuses = [r.status for r in (ok, listed, wrong, bad, missing, elsewhere, models)]
    assert statuses == [200, 200, 401, 400, 404, 401, 401]
    logged = capfd.readouterr()
    assert KEY not in logged.out + logged.err
    assert KEY not in json.dumps(served.usage.events)


async def test_without_alt_a_stream_is_one_json_array(served: Serving) -> None:
    """It parses whole, an element a partial answer, and its type says so."""
    path = "/v1beta/models/test-model:streamGenerateContent"
    array = await served.post(path, BODY)
    events = await served.post(f"{path}?alt=sse", BODY)
    elements = orjson.loads(await array.read())
    texts = [element["candidates"][0]["content"]["parts"][0]["text"] for element in elements]

    assert array.content_type == "application/json"
    assert events.content_type == "text/event-stream"
    assert "".join(texts) == "Hello!"
    assert elements[-1]["candidates"][0]["finishReason"] == "STOP"
    assert elements[-1]["usageMetadata"]["candidatesTokenCount"] == 7


async def test_snake_case_is_understood(served: Serving) -> None:
    """As many published examples write it, single objects in place of lists included."""
    body = {
        "system_instruction": {"parts": {"text": "be brief"}},
        "contents": {"parts": {"text": "hi"}},
        "generation_config": {"max_output_tokens": 2, "stop_sequences": ["x"]},
    }
    response = await served.post("/v1beta/models/test-model:generateContent", body)
    reply = await response.json()

    assert response.status == 200
    assert reply["candidates"][0]["finishReason"] == "MAX_TOKENS"


@pytest.mark.parametrize(
    ("method", "path", "status", "name"),
    [
        ("POST", "/v1beta/models/test-model:nothing", 404, "NOT_FOUND"),
        ("POST", "/v1/models/test-model", 404, "NOT_FOUND"),
        ("GET", "/v1beta/nothing", 404, "NOT_FOUND"),
        ("DELETE", "/v1beta/models", 405, "UNIMPLEMENTED"),
    ],
)
async def test_paths_that_are_not_there_answer_in_this_dialect(
    served: Serving, method: str, path: str, status: int, name: str
) -> None:
    """Like every other error."""
    async with served.session.request(method, served.url + path) as response:
        body = await response.json()
    assert response.status == status
    assert body["error"]["status"] == name
    assert body["error"]["code"] == status
