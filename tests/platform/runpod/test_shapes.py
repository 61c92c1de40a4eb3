"""Inputs of jobs, as clients of RunPod send them."""

from typing import Any

import pytest

from provider_runpod.shapes import JobCall, MalformedJob, read_job

CHAT: dict[str, Any] = {"messages": [{"role": "user", "content": "hi"}]}


@pytest.mark.parametrize(
    ("job_input", "call"),
    [
        (
            {"openai_route": "/v1/completions", "openai_input": {"prompt": "a"}},
            JobCall("POST", "/v1/completions", {"prompt": "a"}),
        ),
        ({"openai_input": CHAT}, JobCall("POST", "/v1/chat/completions", CHAT)),
        ({"openai_route": "v1/models"}, JobCall("GET", "/v1/models")),
        (
            {"route": "/v1/messages", "body": CHAT},
            JobCall("POST", "/v1/messages", CHAT),
        ),
        ({"route": "/v1/models?a=1", "body": None}, JobCall("GET", "/v1/models?a=1")),
        (
            {"route": "/api/v1/keys/x", "method": "delete"},
            JobCall("DELETE", "/api/v1/keys/x"),
        ),
        (CHAT, JobCall("POST", "/v1/chat/completions", {"model": "m", **CHAT})),
        (
            {**CHAT, "sampling_params": {"max_tokens": 3, "top_p": 1}, "max_tokens": 5},
            JobCall(
                "POST",
                "/v1/chat/completions",
                {"model": "m", "top_p": 1, **CHAT, "max_tokens": 5},
            ),
        ),
        (
            {"prompt": "a", "model": "other", "stream": True},
            JobCall("POST", "/v1/completions", {"model": "other", "prompt": "a", "stream": True}),
        ),
        (
            {"openai_input": CHAT, "headers": {"X-Title": "t", "Host": "h", "content-length": "1"}},
            JobCall("POST", "/v1/chat/completions", CHAT, {"X-Title": "t"}),
        ),
    ],
)
def test_each_shape_is_one_call(job_input: object, call: JobCall) -> None:
    """What a job names itself wins over what the shorthand fills in."""
    assert read_job(job_input, default_model="m") == call


def test_the_shapes_are_told_apart_in_order() -> None:
    """A proxy's request may hold whatever else."""
    both = {"prompt": "a", "route": "/v1/x", "openai_route": "/v1/models", **CHAT}
    assert read_job(both, default_model="m").path == "/v1/models"
    assert read_job({**both, "openai_input": CHAT}, default_model="m").method == "POST"


@pytest.mark.parametrize(
    ("job_input", "message"),
    [
        ("hi", "an object, not str"),
        ([], "an object, not list"),
        ({}, "has none of openai_input, openai_route, route, messages, prompt"),
        ({"messages": None}, "has none of"),
        ({"route": 3}, "route must be a path"),
        ({"route": "/v1/x y"}, "route must be a path"),
        ({"route": "/v1/x\r\nHost: evil"}, "route must be a path"),
        ({"route": "//evil/v1"}, "not an address"),
        ({"openai_route": "http://evil/v1"}, "not an address"),
        ({"route": "/v1/models", "method": "BREW"}, "method must be one of GET"),
        ({"route": "/v1/models", "headers": {"a": 1}}, "strings of printable ASCII"),
        ({"route": "/v1/models", "headers": {"a": "b\r\nc: d"}}, "strings of printable ASCII"),
        ({"route": "/v1/models", "headers": {"a b": "c"}}, "strings of printable ASCII"),
        ({"route": "/v1/models", "headers": {"": "c"}}, "strings of printable ASCII"),
        ({"route": "/v1/models", "headers": []}, "strings of printable ASCII"),
        ({"prompt": "a", "sampling_params": [1]}, "sampling_params must be an object, not list"),
    ],
)
def test_anything_else_is_refused_by_name(job_input: object, message: str) -> None:
    """The client is told which part is wrong."""
    with pytest.raises(MalformedJob, match=message):
        read_job(job_input, default_model="m")
