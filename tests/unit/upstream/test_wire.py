"""What goes to an upstream, and what is read of its answer."""

import asyncio
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import orjson
import pytest
from aiohttp import StreamReader
from aiohttp.base_protocol import BaseProtocol

from provider_core import BackendError, GenerationRequest, SamplingParams, TokenLogprobs
from provider_upstream.wire import Chunk, events, read_chunk, request_body

REQUEST = GenerationRequest(
    request_id="1",
    prompt_token_ids=(5, 6),
    sampling=SamplingParams(max_tokens=7),
    eos_token_ids=frozenset({2}),
    cache_salt="account:42/",
)


def body(request: GenerationRequest, dialect: Any = "vllm") -> dict[str, Any]:
    """What is sent, parsed."""
    sent: dict[str, Any] = orjson.loads(request_body(request, "far", dialect))
    return sent


def sampled(**fields: Any) -> dict[str, Any]:
    """What is sent for a request with such sampling."""
    return body(replace(REQUEST, sampling=replace(REQUEST.sampling, **fields)))


def test_every_neutral_value_is_said() -> None:
    """An upstream that fills gaps from a model's own defaults has no gap to fill."""
    sent = body(REQUEST)

    assert sent.pop("cache_salt")
    assert sent == {
        "model": "far",
        "prompt": [5, 6],
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_tokens": 7,
        "temperature": 1.0,
        "top_p": 1.0,
        "top_k": 0,
        "min_p": 0.0,
        "frequency_penalty": 0.0,
        "presence_penalty": 0.0,
        "repetition_penalty": 1.0,
        "min_tokens": 0,
        "ignore_eos": False,
        "stop_token_ids": [2],
        "return_token_ids": True,
    }


def test_the_dialect_of_openai_has_no_other_fields() -> None:
    """For servers that refuse what they do not know."""
    assert body(REQUEST, "openai").keys() == {
        *("model", "prompt", "stream", "stream_options", "max_tokens", "temperature", "top_p"),
        *("frequency_penalty", "presence_penalty"),
    }


def test_what_is_asked_arrives() -> None:
    """Biases by id, log probabilities with ids, ends of our own."""
    sent = sampled(logit_bias=((3, -1.5),), logprobs=4, stop_token_ids=frozenset({9}), top_k=5)

    assert sent["logit_bias"] == {"3": -1.5}
    assert (sent["logprobs"], sent["return_tokens_as_token_ids"]) == (4, True)
    assert (sent["stop_token_ids"], sent["top_k"]) == ([2, 9], 5)


def test_an_end_that_is_to_be_ignored_is_no_stop_token() -> None:
    """Stop tokens of the request still are."""
    sent = sampled(ignore_eos=True, stop_token_ids=frozenset({9}))

    assert (sent["ignore_eos"], sent["stop_token_ids"]) == (True, [9])


@pytest.mark.parametrize(("seed", "sent"), [(0, 0), (2**63 - 1, 2**63 - 1), (2**64 - 1, -1)])
def test_seeds_are_signed(seed: int, sent: int) -> None:
    """64 bits either way; the core counts them from 0."""
    assert sampled(seed=seed)["seed"] == sent


def test_tenants_are_not_named() -> None:
    """The salt keeps their caches apart and says nothing of them."""
    salts = {body(replace(REQUEST, cache_salt=f"account:{i}/"))["cache_salt"] for i in range(2)}

    assert len(salts) == 2
    assert all("account" not in salt and len(salt) == 64 for salt in salts)


async def read_events(pieces: Iterable[bytes]) -> list[bytes]:
    """The events of a stream that comes in such pieces."""
    loop = asyncio.get_running_loop()
    reader = StreamReader(BaseProtocol(loop), limit=2**24, loop=loop)
    for piece in pieces:
        reader.feed_data(piece)
    reader.feed_eof()
    return [event async for event in events(reader)]


STREAM = b': hello\r\n\r\ndata: {"a": "\xc3\xa9"}\n\nevent: x\ndata:{}\r\n\r\ndata: [DONE]\n\n'


@pytest.mark.parametrize("place", range(1, len(STREAM)))
async def test_events_are_read_however_they_are_cut(place: int) -> None:
    """Comments and names are passed over; a line may end in either way."""
    expected = [b'{"a": "\xc3\xa9"}', b"{}", b"[DONE]"]

    assert await read_events([STREAM[:place], STREAM[place:]]) == expected


async def test_an_endless_line_is_refused() -> None:
    """Memory is finite."""
    with pytest.raises(BackendError, match="too long"):
        await read_events([b"data: " + b"x" * 2**20])


def read(choice: dict[str, Any], num_logprobs: int | None = None, **fields: Any) -> Chunk:
    """A chunk with one choice."""
    return read_chunk(orjson.dumps({"choices": [choice], **fields}), num_logprobs)


def test_ids_win_over_text() -> None:
    """Both are there in vLLM's answers."""
    chunk = read({"text": "ab", "token_ids": [4, 5], "finish_reason": None})

    assert (chunk.text, chunk.token_ids, chunk.finish_reason) == ("ab", (4, 5), None)


def test_no_ids_are_not_an_empty_list_of_them() -> None:
    """Text has to be encoded only where ids are never given."""
    assert read({"text": ""}).token_ids is None
    assert read({"text": "", "token_ids": []}).token_ids == ()


def test_the_end_says_why() -> None:
    """`stop_reason` is an id, a string that we did not ask for, or nothing."""
    assert read({"finish_reason": "stop", "stop_reason": 9}).stop_token_id == 9
    assert read({"finish_reason": "stop", "stop_reason": "x"}).stop_token_id is None
    assert read({"finish_reason": "stop", "stop_reason": None}).finish_reason == "stop"


def test_usage_says_what_was_cached() -> None:
    """In an event of its own, or beside the end."""
    usage = {"prompt_tokens": 9, "prompt_tokens_details": {"cached_tokens": 8}}

    assert read_chunk(orjson.dumps({"choices": [], "usage": usage})).num_cached_tokens == 8
    assert read({"finish_reason": "length"}, usage=usage).num_cached_tokens == 8
    assert read({}, usage={"prompt_tokens_details": None}).num_cached_tokens == 0


def test_alternatives_are_the_likeliest_that_were_asked_for() -> None:
    """The chosen token may be added to them."""
    logprobs = {
        "tokens": ["token_id:7"],
        "token_logprobs": [-3.0],
        "top_logprobs": [{"token_id:7": -3.0, "token_id:1": -0.5, "token_id:2": -0.25}],
    }

    chunk = read({"token_ids": [7], "logprobs": logprobs}, 2)

    assert chunk.logprobs == (TokenLogprobs(7, -3.0, ((2, -0.25), (1, -0.5))),)


@pytest.mark.parametrize(
    "event",
    [
        b"",
        b"[1]",
        b"{}",
        b'{"choices": 1}',
        b'{"choices": [{"token_ids": ["a"]}]}',
        b'{"error": {"message": "x"}}',
    ],
)
def test_anything_else_is_a_failure_of_the_upstream(event: bytes) -> None:
    """Whatever it is, nothing of it is repeated to a client."""
    with pytest.raises(BackendError, match=r"^the upstream"):
        read_chunk(event)
