"""Every kind of refusal with the google-genai package: class, code, name, and what to do."""

from collections.abc import Iterator
from typing import Any

import pytest
from google import genai
from google.genai import errors, types
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

# The package subclasses aiohttp's session, which aiohttp discourages.
pytestmark = pytest.mark.filterwarnings("ignore:Inheritance class:DeprecationWarning")

ATTEMPTS = 2
REQUEST: Any = {"model": "test-model", "contents": "hi"}


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Keep tracebacks, which take long to draw, off the screen."""
    with capture_logs():
        yield


async def ask(client: genai.client.AsyncClient, *, stream: bool) -> None:
    """One request."""
    if stream:
        await anext(await client.models.generate_content_stream(**REQUEST))
    else:
        await client.models.generate_content(**REQUEST)


@pytest.mark.parametrize(
    ("cause", "code", "status", "is_retried"),
    [
        (PermissionDenied("no"), 403, "PERMISSION_DENIED", False),
        (
            RateLimited("pay first", code="insufficient_credits"),
            402,
            "RESOURCE_EXHAUSTED",
            False,
        ),
        (RateLimited("too many", code="tokens_per_minute"), 429, "RESOURCE_EXHAUSTED", True),
        (Overloaded("full"), 429, "RESOURCE_EXHAUSTED", True),
        (BackendError("broken"), 502, "INTERNAL", True),
        (Unavailable("not now"), 503, "UNAVAILABLE", True),
        (DeadlineExceeded("too late"), 504, "DEADLINE_EXCEEDED", True),
        (RuntimeError("/secret/path"), 500, "INTERNAL", True),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)
@pytest.mark.parametrize("stream", [False, True])
async def test_bug_11_refusals_look_alike_streamed_or_not(
    cause: Exception, code: int, status: str, *, is_retried: bool, stream: bool
) -> None:
    """The class of its status; retried where the client was told to; nothing is billed."""
    gatekeeper = Gatekeeper(cause)
    retries = types.HttpRetryOptions(attempts=ATTEMPTS, initial_delay=0.01, max_delay=0.01)
    async with serving(plugins=(gatekeeper,)) as served:
        http = types.HttpOptions(base_url=served.url, retry_options=retries)
        client = genai.Client(api_key=KEY, http_options=http).aio
        with pytest.raises(errors.ClientError if code < 500 else errors.ServerError) as caught:
            await ask(client, stream=stream)
        await client.aclose()
        assert served.usage.events == []
    assert (caught.value.code, caught.value.status) == (code, status)
    assert gatekeeper.num_attempts == (ATTEMPTS if is_retried else 1)
    assert "/secret" not in str(caught.value)
