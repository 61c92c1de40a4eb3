"""J: bodies that are no request, to the other dialects' routes: refused in each one's own form."""

from typing import Any

import pytest

from tests.serving import Serving
from tests.threats.aftermath import unharmed

pytestmark = pytest.mark.asyncio(loop_scope="module")

PATHS = {
    "anthropic": ["/v1/messages", "/api/v1/messages", "/v1/messages/count_tokens"],
    "google": [
        "/v1beta/models/test-model:generateContent",
        "/v1/models/test-model:streamGenerateContent?alt=sse",
        "/v1beta/models/test-model:countTokens",
        "/v1beta/models/test-model:batchEmbedContents",
    ],
}
ROUTES = [(dialect, path) for dialect, paths in PATHS.items() for path in paths]
BODIES: dict[str, bytes] = {
    "empty": b"",
    "truncated": b'{"model": "test-model"',
    "byte order mark": b"\xef\xbb\xbf{}",
    "scalar": b"5",
    "array": b"[]",
    "invalid UTF-8": b'{"model": "\xff"}',
    "lone surrogate": b'{"contents": "\\ud800", "model": "\\ud800"}',
    "not a number": b'{"max_tokens": NaN}',
    "too deep": b'{"a":' * 65 + b"1" + b"}" * 65,
    "nothing in it": b"{}",
}


def check_refusal(dialect: str, status: int, body: dict[str, Any]) -> None:
    """A refusal in the form of its dialect."""
    if dialect == "anthropic":
        assert body.keys() == {"type", "error", "request_id"}
        assert body["error"].keys() == {"type", "message"}
        assert body["error"]["type"] == "invalid_request_error"
    else:
        assert body.keys() == {"error"}
        assert (body["error"]["code"], body["error"]["status"]) == (status, "INVALID_ARGUMENT")
    assert body["error"]["message"]


@pytest.mark.parametrize(("dialect", "path"), ROUTES)
async def test_j1_to_j9_bodies_that_cannot_be_read(
    served: Serving, dialect: str, path: str
) -> None:
    """J1 to J5, J9: a 400, and the server goes on."""
    headers = {"Content-Type": "application/json"}
    async with unharmed(served):
        for name, data in BODIES.items():
            async with served.session.post(
                served.url + path, data=data, headers=headers
            ) as response:
                assert response.status == 400, name
                check_refusal(dialect, 400, await response.json())


@pytest.mark.parametrize(("dialect", "path"), ROUTES)
async def test_j15_bodies_of_another_type(served: Serving, dialect: str, path: str) -> None:
    """J15: a 415, whatever the body."""
    async with served.session.post(
        served.url + path, data=b"{}", headers={"Content-Type": "text/plain"}
    ) as response:
        assert response.status == 415
        check_refusal(dialect, 415, await response.json())
