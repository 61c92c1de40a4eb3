"""Upstreams that are not ready, or do what no completion does."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from provider_core import BackendError, ConfigurationError, SamplingParams, Unavailable
from provider_core.testing import Recorder, submit
from provider_upstream import discovery
from provider_upstream import engine as upstream_engine
from provider_upstream.discovery import Upstream, find_upstream
from provider_upstream.engine import UpstreamEngine
from provider_upstream.piece_encoder import PieceEncoder, read_piece_encoder
from provider_upstream.settings import UpstreamSettings
from tests.serving import make_model_dir

MODELS = {"data": [{"id": "m"}]}
DONE = b"data: [DONE]\n\n"


def event(**choice: Any) -> bytes:
    """A chunk with one choice."""
    return b"data: " + orjson.dumps({"choices": [{"text": "", **choice}]}) + b"\n\n"


def usage(cached: object) -> bytes:
    """The chunk that says what was cached."""
    details = {"prompt_tokens_details": {"cached_tokens": cached}}
    return b"data: " + orjson.dumps({"choices": [], "usage": details}) + b"\n\n"


TOKEN = event(token_ids=[5], finish_reason="length") + DONE


class Answers:
    """A server that says what it is told to.

    Attributes:
        models: Statuses of the next lists of models, `None` for no answer ever; 200 after them.
        completions: The next completions: a status, or a body; the last one again and again.
    """

    def __init__(self) -> None:
        self.models: list[int | None] = []
        self.completions: list[int | bytes | None] = [TOKEN]
        self.url = ""

    async def list_models(self, _: web.Request) -> web.Response:
        """Answer with a status or the one model."""
        status = self.models.pop(0) if self.models else 200
        if status is None:
            await asyncio.Event().wait()
        return web.json_response(MODELS, status=status or 200)

    async def complete(self, request: web.Request) -> web.Response:
        """Answer with a status, or a body, or break off."""
        *following, answer = self.completions[::-1]
        self.completions = following[::-1] or [answer]
        if answer is None:
            assert request.transport is not None
            request.transport.close()
        if isinstance(answer, int):
            return web.Response(status=answer)
        return web.Response(body=answer, content_type="text/event-stream")


@pytest.fixture
async def answers(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Answers]:
    """Listening; asked again at once."""
    monkeypatch.setattr(discovery, "RETRY_S", 0.0)
    told, app = Answers(), web.Application()
    app.router.add_get("/v1/models", told.list_models)
    app.router.add_post("/v1/completions", told.complete)
    async with TestServer(app) as server:
        told.url = str(server.make_url("/v1"))
        yield told


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> PieceEncoder:
    """Of the tests' model."""
    return read_piece_encoder(make_model_dir(tmp_path_factory.mktemp("upstream") / "model"))


async def find(answers: Answers, encoder: PieceEncoder, timeout_s: float = 30.0) -> Upstream:
    """As a start does."""
    settings = UpstreamSettings(base_url=answers.url, start_timeout_s=timeout_s)
    return await asyncio.to_thread(find_upstream, settings, encoder)


async def test_a_start_waits_for_what_loads(answers: Answers, encoder: PieceEncoder) -> None:
    """It lists its models long before it completes, is busy at times, and breaks off."""
    answers.models = [503, 429]
    answers.completions = [503, 429, 500, None, TOKEN]

    assert (await find(answers, encoder)).gives_ids


async def test_a_start_that_waited_too_long_says_for_what(
    answers: Answers, encoder: PieceEncoder
) -> None:
    """The last status."""
    answers.completions = [503]

    with pytest.raises(
        ConfigurationError, match=r"for 0 s: .*/completions answers with status 503"
    ):
        await find(answers, encoder, timeout_s=0)


@pytest.mark.parametrize(
    ("completion", "says"),
    [
        (401, "refuses the key in option api_key with status 401"),
        (404, "/completions answers with status 404"),
        (400, "/completions answers with status 400"),
        (b"hello", "did not make the one token"),
        (usage(0) + DONE, "did not make the one token"),
        (b"data: {}\n\n", "completes no prompt of ids"),
    ],
)
async def test_what_will_not_pass_ends_the_start_at_once(
    answers: Answers, encoder: PieceEncoder, completion: int | bytes, says: str
) -> None:
    """With its reason, however long the start may wait."""
    answers.completions = [completion]

    with pytest.raises(ConfigurationError, match=says):
        await find(answers, encoder)


def make_engine(answers: Answers, encoder: PieceEncoder, **settings: Any) -> UpstreamEngine:
    """One that forwards to these answers."""
    return UpstreamEngine(
        Upstream(model="m", software="test", max_model_len=None, gives_ids=True),
        UpstreamSettings(base_url=answers.url, **settings),
        encoder,
        max_num_seqs=2,
        max_model_len=64,
    )


async def complete(answers: Answers, encoder: PieceEncoder, body: bytes) -> Recorder:
    """One sequence, of two prompt ids, over such an answer."""
    answers.completions = [body]
    engine = make_engine(answers, encoder)
    try:
        sampling = SamplingParams(max_tokens=3, temperature=0.0)
        recorder = submit(engine, "one", [1, 2], sampling, eos_token_ids=frozenset({9}))
        await recorder.result(timeout_s=10)
        assert engine.load().num_running == 0
    finally:
        await engine.close()
    return recorder


@pytest.mark.parametrize("cached", ["x", -7, 3, 700, 1.5, True, [1]])
async def test_cached_tokens_that_cannot_be_are_a_failure(
    answers: Answers, encoder: PieceEncoder, cached: object
) -> None:
    """They are billed at another price; the sequence ends all the same."""
    body = event(token_ids=[5], finish_reason="length") + usage(cached) + DONE

    last = (await complete(answers, encoder, body)).outputs[-1]

    assert isinstance(last.error, BackendError)
    assert "cached" in last.error.message


@pytest.mark.parametrize("cached", [None, 0, 2])
async def test_cached_tokens_are_handed_on(
    answers: Answers, encoder: PieceEncoder, cached: int | None
) -> None:
    """Up to the whole prompt."""
    body = event(token_ids=[5], finish_reason="length") + usage(cached) + DONE

    assert (await complete(answers, encoder, body)).outputs[-1].num_cached_tokens == (cached or 0)


@pytest.mark.parametrize(
    "extra",
    [
        event(token_ids=[6]),
        event(token_ids=[], finish_reason="length"),
        event(token_ids=[6, 7, 8], finish_reason="length"),
    ],
)
async def test_nothing_follows_the_end(
    answers: Answers, encoder: PieceEncoder, extra: bytes
) -> None:
    """Ids behind the last ones were delivered before them."""
    body = event(token_ids=[9], finish_reason="stop") + extra + usage(0) + DONE

    recorder = await complete(answers, encoder, body)

    assert recorder.token_ids == []
    assert isinstance(recorder.outputs[-1].error, BackendError)
    assert "went on after it had ended" in recorder.outputs[-1].error.message


async def test_an_empty_chunk_may_follow(answers: Answers, encoder: PieceEncoder) -> None:
    """It says nothing."""
    body = event(token_ids=[5]) + event(token_ids=[9], finish_reason="stop") + event() + DONE

    assert (await complete(answers, encoder, body)).token_ids == [5, 9]


async def test_a_probe_without_an_answer_is_sent_again(
    answers: Answers, encoder: PieceEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A silence within an answer may be far longer than that of a list of models."""
    monkeypatch.setattr(upstream_engine, "PROBE_S", 0.0)
    answers.models = [None, 503]
    engine = make_engine(answers, encoder, connect_timeout_s=0.05)
    try:
        engine._note_unreachable()
        with pytest.raises(Unavailable):
            engine.check_health()
        assert engine._probe is not None
        await asyncio.wait_for(engine._probe, timeout=10)
        engine.check_health()
        assert answers.models == []
    finally:
        await engine.close()


async def test_a_completion_ends_what_a_probe_would_have(
    answers: Answers, encoder: PieceEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever completes can be reached."""
    monkeypatch.setattr(upstream_engine, "PROBE_S", 3600.0)
    engine = make_engine(answers, encoder)
    try:
        engine._note_unreachable()
        sampling = SamplingParams(max_tokens=1, temperature=0.0)
        await submit(engine, "one", [1, 2], sampling).result(timeout_s=10)
        engine.check_health()
    finally:
        await engine.close()
