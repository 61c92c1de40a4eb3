"""Every kind of refusal with the anthropic package: class, type, and how often it tries again."""

from collections.abc import Iterator
from typing import Any

import anthropic
import pytest
from structlog.testing import capture_logs

from provider_core.errors import (
    BackendError,
    DeadlineExceeded,
    Overloaded,
    PermissionDenied,
    RateLimited,
    Unavailable,
)
from tests.contract.test_error_matrix import Gatekeeper
from tests.serving import KEY, serving

RETRIES = 2
REQUEST: Any = {
    "model": "test-model",
    "max_tokens": 5,
    "messages": [{"role": "user", "content": "hi"}],
}


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Keep tracebacks, which take long to draw, off the screen."""
    with capture_logs():
        yield


class Client(anthropic.AsyncAnthropic):
    """The package's client, which does not wait before it tries again."""

    def _calculate_retry_timeout(self, *_args: Any, **_options: Any) -> float:
        return 0


@pytest.mark.parametrize(
    ("cause", "raises", "error_type", "is_retried"),
    [
        (PermissionDenied("no"), anthropic.PermissionDeniedError, "permission_error", False),
        (
            RateLimited("pay first", code="insufficient_credits"),
            anthropic.APIStatusError,
            "billing_error",
            False,
        ),
        (
            RateLimited("too many", code="tokens_per_minute"),
            anthropic.RateLimitError,
            "rate_limit_error",
            True,
        ),
        (Overloaded("full"), anthropic.RateLimitError, "rate_limit_error", True),
        (BackendError("broken"), anthropic.InternalServerError, "api_error", True),
        (Unavailable("not now"), anthropic.OverloadedError, "overloaded_error", True),
        (DeadlineExceeded("too late"), anthropic.DeadlineExceededError, "timeout_error", True),
        (RuntimeError("/secret/path"), anthropic.InternalServerError, "api_error", True),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)
@pytest.mark.parametrize("stream", [False, True])
async def test_bug_11_refusals_look_alike_streamed_or_not(
    cause: Exception,
    raises: type[anthropic.APIStatusError],
    error_type: str,
    *,
    is_retried: bool,
    stream: bool,
) -> None:
    """The class of its status, retried as often as that makes sense; nothing is billed."""
    gatekeeper = Gatekeeper(cause)
    async with (
        serving(plugins=(gatekeeper,)) as served,
        Client(base_url=served.url, api_key=KEY, max_retries=RETRIES) as client,
    ):
        with pytest.raises(raises) as caught:
            await client.messages.create(**REQUEST, stream=stream)
        assert served.usage.events == []
    assert caught.value.type == error_type
    assert gatekeeper.num_attempts == (1 + RETRIES if is_retried else 1)
    assert "/secret" not in str(caught.value)
    assert caught.value.response.headers["content-type"] == "application/json"
    assert caught.value.request_id == caught.value.response.json()["request_id"]
