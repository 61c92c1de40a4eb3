"""What a job asks for: the shapes of `input` that clients of RunPod send, as calls of the server.

They are those of RunPod's own worker for vLLM, so that a client need not know which of the two it
talks to, and are told apart in this order::

    {"openai_route": "/v1/chat/completions", "openai_input": {...}}    from RunPod's OpenAI proxy
    {"openai_route": "/v1/models"}                                     the same, without a body
    {"route": "/v1/messages", "body": {...}, "method": "POST"}         any path of the server
    {"messages": [...], "sampling_params": {...}, "stream": true}      shorthand, also with `prompt`

Beside any of them, `headers` is sent along: an API key of the tenant, an idempotency key.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")  # of a header: RFC 9110 section 5.6.2
_CHAT = "/v1/chat/completions"
_COMPLETIONS = "/v1/completions"
_OF_THE_CONNECTION = frozenset(
    {
        "connection",
        "content-length",
        "content-type",
        "expect",
        "host",
        "te",
        "transfer-encoding",
        "upgrade",
    }
)
_MARKS = ("openai_input", "openai_route", "route", "messages", "prompt")  # in order


class MalformedJob(ValueError):
    """A job's input has none of the shapes; the message is for the client."""


@dataclass(frozen=True, slots=True)
class JobCall:
    """One request of the server.

    Attributes:
        body: JSON; `None` for a request without.
        headers: What the job adds.
    """

    method: str
    path: str
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)


def read_job(job_input: object, *, default_model: str) -> JobCall:
    """Read a job's `input`.

    Args:
        job_input: Whatever the client sent.
        default_model: For the shorthand, whose clients name no model.

    Raises:
        MalformedJob: It has none of the shapes.
    """
    if not isinstance(job_input, dict):
        raise MalformedJob(f"input must be an object, not {_kind(job_input)}")
    headers = _headers(job_input.get("headers"))
    match next((mark for mark in _MARKS if job_input.get(mark) is not None), None):
        case "openai_input":
            route = job_input.get("openai_route") or _CHAT
            return JobCall("POST", _path(route, "openai_route"), job_input["openai_input"], headers)
        case "openai_route":
            return JobCall("GET", _path(job_input["openai_route"], "openai_route"), None, headers)
        case "route":
            body = job_input.get("body")
            method = _method(job_input.get("method"), "GET" if body is None else "POST")
            return JobCall(method, _path(job_input["route"], "route"), body, headers)
        case "messages" | "prompt" as mark:
            body = _shorthand(job_input, default_model)
            return JobCall("POST", _CHAT if mark == "messages" else _COMPLETIONS, body, headers)
        case _:
            raise MalformedJob(f"input has none of {', '.join(_MARKS)}")


def _shorthand(job_input: Mapping[str, Any], default_model: str) -> dict[str, Any]:
    """The body that the shorthand stands for: what it names itself wins."""
    sampling = job_input.get("sampling_params") or {}
    if not isinstance(sampling, dict):
        raise MalformedJob(f"sampling_params must be an object, not {_kind(sampling)}")
    own = {
        name: value
        for name, value in job_input.items()
        if name not in {"sampling_params", "headers"} and value is not None
    }
    return {"model": default_model, **sampling, **own}


def _path(route: object, name: str) -> str:
    if not isinstance(route, str) or not route.isascii() or not route.isprintable() or " " in route:
        raise MalformedJob(f"{name} must be a path such as {_CHAT}")
    path = route if route.startswith("/") else f"/{route}"
    if path.startswith("//") or "://" in path.partition("?")[0]:
        raise MalformedJob(f"{name} must be a path, not an address")
    return path


def _method(method: object, default: str) -> str:
    if method is None:
        return default
    if not isinstance(method, str) or method.upper() not in METHODS:
        raise MalformedJob(f"method must be one of {', '.join(METHODS)}")
    return method.upper()


def _headers(headers: object) -> dict[str, str]:
    if headers is None:
        return {}
    if not isinstance(headers, dict) or not all(
        _NAME.fullmatch(name) and isinstance(value, str) and value.isascii() and value.isprintable()
        for name, value in headers.items()
    ):
        raise MalformedJob("headers must be an object of strings of printable ASCII")
    return {
        name: value for name, value in headers.items() if name.lower() not in _OF_THE_CONNECTION
    }


def _kind(value: object) -> str:
    return type(value).__name__
