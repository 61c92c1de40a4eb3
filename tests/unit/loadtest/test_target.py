"""Addresses, and the bytes of a request."""

import json
from typing import Any

import pytest

from provider_core.errors import ConfigurationError
from provider_core.loadtest.target import Sampling, Target, make_target
from provider_core.loadtest.workload import Request

IDS = Request(prompt=[1, 2], max_tokens=5)
TEXT = Request(prompt="hi", max_tokens=5)


def target(url: str, **options: Any) -> Target:
    """One with a label."""
    return make_target(url, label="A", **options)


def body_of(message: bytes) -> Any:
    """The JSON behind the head, whose length must be right."""
    head, _, body = message.partition(b"\r\n\r\n")
    assert f"Content-Length: {len(body)}".encode() in head.split(b"\r\n")
    return json.loads(body)


@pytest.mark.parametrize(
    ("url", "port", "path", "models"),
    [
        ("http://h:81", 81, "/v1/completions", "/v1/models"),
        ("http://h:81/v1/", 81, "/v1/completions", "/v1/models"),
        ("https://h/api/v1", 443, "/api/v1/completions", "/api/v1/models"),
        ("http://h/v1/chat/completions", 80, "/v1/chat/completions", "/v1/models"),
        ("http://[::1]:81/completion", 81, "/completion", "/models"),
    ],
)
def test_a_url_may_be_the_server_or_the_endpoint(
    url: str, port: int, path: str, models: str
) -> None:
    """What is missing is filled in."""
    made = target(url)

    assert (made.port, made.path, made.models_path) == (port, path, models)


def test_a_path_given_stands() -> None:
    """Above the one in the URL."""
    assert target("http://h/v1", path="/completion").dialect == "llama"


@pytest.mark.parametrize(
    ("url", "options"),
    [
        ("h:81", {}),
        ("ftp://h", {}),
        ("http://h:port", {}),
        ("http://h", {"path": "/v1/embeddings"}),
        ("http://h", {"path": "/v1/x\r\nEvil: 1/completions"}),
        ("http://h", {"key": "a\nb"}),
    ],
)
def test_what_cannot_be_asked_is_refused(url: str, options: dict[str, str]) -> None:
    """Before a byte is sent, and without a way to smuggle a header."""
    with pytest.raises(ConfigurationError):
        target(url, **options)


def test_a_completion_takes_ids() -> None:
    """Greedy, exactly as long as asked, with usage."""
    message = target("http://h:81", key="sk-1", model="m").post(IDS)
    head = message.partition(b"\r\n\r\n")[0].split(b"\r\n")

    assert head[0] == b"POST /v1/completions HTTP/1.1"
    assert {b"Host: h:81", b"Authorization: Bearer sk-1"} <= set(head)
    assert body_of(message) == {
        "model": "m",
        "prompt": [1, 2],
        "max_tokens": 5,
        "temperature": 0.0,
        "ignore_eos": True,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def test_a_chat_takes_messages() -> None:
    """And no prompt."""
    body = body_of(target("http://h/v1/chat/completions").post(TEXT))

    assert body["messages"] == [{"role": "user", "content": "hi"}]
    assert "prompt" not in body
    assert "model" not in body


@pytest.mark.parametrize("num_shared", [0, 16])
def test_llama_server_caches_only_what_is_shared(num_shared: int) -> None:
    """Its cache is on unless told otherwise, and would help nobody else's comparison."""
    request = Request(prompt=[1], max_tokens=5, num_shared_tokens=num_shared)
    body = body_of(target("http://h/completion").post(request))

    assert (body["n_predict"], body["cache_prompt"]) == (5, num_shared > 0)


def test_further_fields_win_and_null_takes_out() -> None:
    """So that any server's own dialect can be spoken."""
    extra = {"max_tokens": None, "max_completion_tokens": 5, "top_p": 0.5}
    request = Request(prompt="hi", max_tokens=5, extra={"top_p": 0.1, "user": "u"})
    sampling = Sampling(ignore_eos=False, temperature=1.0, extra=extra)
    body = body_of(target("http://h", sampling=sampling).post(request))

    assert {"max_tokens", "ignore_eos"} & body.keys() == set()
    assert (body["max_completion_tokens"], body["top_p"], body["user"]) == (5, 0.5, "u")
