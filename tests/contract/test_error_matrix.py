"""Every kind of refusal, streamed or not, under both paths: status, body, headers, SDK retries."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import openai
import pytest
from structlog.testing import capture_logs

from provider_core import hookimpl
from provider_core.errors import (
    BackendError,
    DeadlineExceeded,
    Overloaded,
    PermissionDenied,
    RateLimited,
    Unavailable,
)
from tests.serving import KEY, Serving, serving
from tests.sse_checker import check_error_object

RETRIES = 2


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Keep tracebacks, which take long to draw, off the screen."""
    with capture_logs():
        yield


class Gatekeeper:
    """A plugin that refuses what it is told to, and counts who comes.

    Args:
        error: What to raise for a request that is otherwise fine.
    """

    def __init__(self, error: Exception | None) -> None:
        self.num_attempts = 0
        self._error = error

    @hookimpl
    def authenticate(self) -> None:
        """Count, and leave the decision to others."""
        self.num_attempts += 1

    @hookimpl
    def admit_request(self) -> None:
        """Refuse."""
        if self._error is not None:
            raise self._error


class Client(openai.AsyncOpenAI):
    """The package's client, which does not wait before it tries again."""

    def _calculate_retry_timeout(self, *_args: Any, **_options: Any) -> float:
        return 0


@dataclass
class Case:
    """One cause, and the answer that it must get under `/v1`.

    Attributes:
        raises: In the package.
        status: Under `/v1`.
        error: The rest of the error object, without its message.
        is_retried: By the package.
        cause: What a plugin raises.
        fields: Of the request.
        key: Of the client.
        openrouter_status: Under `/api/v1`, if another.
    """

    raises: type[openai.APIStatusError]
    status: int
    error: dict[str, str | None]
    is_retried: bool = False
    cause: Exception | None = None
    fields: dict[str, Any] = field(default_factory=dict)
    key: str = KEY
    openrouter_status: int | None = None


def error(error_type: str, code: str | None, param: str | None = None) -> dict[str, str | None]:
    """An error object without its message."""
    return {"type": error_type, "code": code, "param": param}


INVALID = "invalid_request_error"
CASES = {
    "bad key": Case(
        openai.AuthenticationError, 401, error(INVALID, "invalid_api_key"), key="sk-wrong"
    ),
    "unknown model": Case(
        openai.NotFoundError,
        404,
        error(INVALID, "model_not_found"),
        fields={"model": "nobody"},
        openrouter_status=400,
    ),
    "prompt too long": Case(
        openai.BadRequestError,
        400,
        error(INVALID, "context_length_exceeded", "messages"),
        fields={"messages": [{"role": "user", "content": "x" * 3000}]},
    ),
    "wrong type": Case(
        openai.BadRequestError,
        400,
        error(INVALID, "invalid_type", "top_logprobs"),
        fields={"top_logprobs": "5"},
    ),
    "out of range": Case(
        openai.BadRequestError,
        400,
        error(INVALID, "invalid_value", "temperature"),
        fields={"temperature": 3},
    ),
    "not supported": Case(
        openai.BadRequestError,
        400,
        error(INVALID, "unsupported_parameter", "store"),
        fields={"store": True},
    ),
    "not allowed": Case(
        openai.PermissionDeniedError,
        403,
        error("permission_error", "forbidden"),
        cause=PermissionDenied("not this model"),
    ),
    "tokens per minute": Case(
        openai.RateLimitError,
        429,
        error("tokens", "rate_limit_exceeded"),
        is_retried=True,
        cause=RateLimited("too many", code="tokens_per_minute", retry_after_s=1.5),
    ),
    "requests per minute": Case(
        openai.RateLimitError,
        429,
        error("requests", "rate_limit_exceeded"),
        is_retried=True,
        cause=RateLimited("too many", code="requests_per_minute"),
    ),
    "out of credit": Case(
        openai.RateLimitError,
        429,
        error("insufficient_quota", "insufficient_quota"),
        cause=RateLimited("pay first", code="insufficient_credits"),
        openrouter_status=402,
    ),
    "overloaded": Case(
        openai.RateLimitError,
        429,
        error("rate_limit_error", "overloaded"),
        is_retried=True,
        cause=Overloaded("full"),
    ),
    "not ready": Case(
        openai.InternalServerError,
        503,
        error("server_error", "draining"),
        is_retried=True,
        cause=Unavailable("not now", code="draining"),
    ),
    "backend failed": Case(
        openai.InternalServerError,
        502,
        error("server_error", "backend_error"),
        is_retried=True,
        cause=BackendError("the backend failed"),
    ),
    "too late": Case(
        openai.InternalServerError,
        504,
        error("server_error", "deadline_exceeded"),
        is_retried=True,
        cause=DeadlineExceeded("too late"),
    ),
    "internal": Case(
        openai.InternalServerError,
        500,
        error("server_error", None),
        is_retried=True,
        cause=RuntimeError("/secret/path"),
    ),
}


@pytest.mark.parametrize("name", CASES)
async def test_bug_11_refusals_look_alike_streamed_or_not(name: str) -> None:
    """Contract 14.5, BUG-10, BUG-11: status, four keys, headers; nothing is left or billed."""
    case = CASES[name]
    async with serving(plugins=(Gatekeeper(case.cause),)) as served:
        for stream in (False, True):
            await check_refusal(served, case, stream=stream)
        await nothing_left(served)


async def check_refusal(served: Serving, case: Case, *, stream: bool) -> None:
    """Check one refusal under both paths."""
    body = request_of(case, stream=stream)
    headers = {"Authorization": f"Bearer {case.key}"}
    reply = await served.post("/v1/chat/completions", body, headers=headers)
    assert reply.status == case.status
    check_headers(reply.headers, case.status, is_final=not case.is_retried)
    answer = await reply.json()
    assert answer.keys() == {"error"}
    check_error_object(answer["error"])
    assert answer["error"] == {**case.error, "message": answer["error"]["message"]}
    assert "secret" not in await reply.text()

    mirror = await served.post("/api/v1/chat/completions", body, headers=headers)
    assert mirror.status == (case.openrouter_status or case.status)
    check_headers(mirror.headers, mirror.status, is_final=not case.is_retried)
    answer = await mirror.json()
    check_error_object(answer["error"], openrouter=True)
    assert answer["error"]["code"] == mirror.status


@pytest.mark.parametrize("name", CASES)
async def test_bug_10_the_package_raises_and_retries_what_it_should(name: str) -> None:
    """BUG-10: a client's mistake is asked once, what may pass is asked again."""
    case = CASES[name]
    keeper = Gatekeeper(case.cause)
    async with (
        serving(plugins=(keeper,)) as served,
        Client(base_url=served.url + "/v1", api_key=case.key, max_retries=RETRIES) as client,
    ):
        for stream in (False, True):
            keeper.num_attempts = 0
            with pytest.raises(case.raises) as caught:
                await client.chat.completions.create(**request_of(case, stream=stream))
            assert type(caught.value) is case.raises
            assert caught.value.code == case.error["code"]
            assert caught.value.param == case.error["param"]
            assert caught.value.request_id is not None
            assert keeper.num_attempts == (1 + RETRIES if case.is_retried else 1)
        await nothing_left(served)


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/responses", "/v1/completions"])
@pytest.mark.parametrize(
    ("method", "body", "content_type", "status", "code"),
    [
        ("POST", b"{", "application/json", 400, "invalid_json"),
        ("POST", b"[]", "application/json", 400, "invalid_json"),
        ("POST", b"", "application/json", 400, "invalid_json"),
        ("POST", b"{}", "text/plain", 415, "unsupported_media_type"),
        ("POST", b" " * 4097, "application/json", 413, "request_too_large"),
        ("GET", b"", "application/json", 405, "method_not_allowed"),
    ],
)
async def test_what_never_becomes_a_request(
    path: str, method: str, body: bytes, content_type: str, status: int, code: str
) -> None:
    """The same object for what fails before any field is read."""
    async with serving(limits={"max_body_bytes": 4096}) as served:
        reply = await served.session.request(
            method, served.url + path, data=body, headers={"Content-Type": content_type}
        )
        answer = await reply.json()
        assert reply.status == status
        check_error_object(answer["error"])
        assert (answer["error"]["type"], answer["error"]["code"]) == (INVALID, code)
        await nothing_left(served)


def request_of(case: Case, *, stream: bool) -> dict[str, Any]:
    """The request's body."""
    messages = [{"role": "user", "content": "hi"}]
    return {"model": "test-model", "messages": messages, "stream": stream, **case.fields}


def check_headers(headers: Any, status: int, *, is_final: bool) -> None:
    """JSON whatever was asked, a request id, and when to come back if that helps."""
    assert headers["Content-Type"].startswith("application/json")
    assert headers["X-Request-Id"]
    if status in {429, 402} and is_final:
        assert headers["x-should-retry"] == "false"
        assert "Retry-After" not in headers
    elif status in {429, 503}:
        assert int(headers["Retry-After"]) >= 1
        assert int(headers["retry-after-ms"]) >= 1
    assert ("WWW-Authenticate" in headers) is (status == 401)


async def nothing_left(served: Serving) -> None:
    """No generation is open, and none was billed."""
    await served.settled()
    assert served.usage.events == []
