"""Bad bodies for both endpoints, streamed and whole, and the answer each must get."""

from collections.abc import Iterator, Mapping
from io import BytesIO
from typing import Any

import aiohttp
import orjson

from tests.serving import Serving
from tests.threats.aftermath import unharmed

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
PROMPTS: Mapping[str, dict[str, Any]] = {
    CHAT: {"messages": [{"role": "user", "content": "hi"}]},
    COMPLETIONS: {"prompt": "hi"},
}


def variants(
    fields: Mapping[str, Any], paths: tuple[str, ...] = (CHAT, COMPLETIONS)
) -> Iterator[tuple[str, dict[str, Any]]]:
    """A request with some fields, for each endpoint, streamed and whole."""
    for path in paths:
        for stream in (False, True):
            yield path, {"model": "test-model", **PROMPTS[path], "stream": stream, **fields}


async def refused(
    served: Serving,
    fields: Mapping[str, Any],
    *,
    param: str | None,
    code: str | None = None,
    status: int = 400,
    paths: tuple[str, ...] = (CHAT, COMPLETIONS),
) -> None:
    """Send every variant; each must get this answer, leave nothing, and harm nobody."""
    for path, body in variants(fields, paths):
        async with unharmed(served):
            reply = await post_bytes(served, path, orjson.dumps(body))
        error = await error_of(reply)
        assert (reply.status, error["param"]) == (status, param), error
        assert code in {None, error["code"]}, error


async def served_as_ever(
    served: Serving, fields: Mapping[str, Any], paths: tuple[str, ...] = (CHAT, COMPLETIONS)
) -> None:
    """Send every variant; each must be answered and billed once."""
    for path, body in variants(fields, paths):
        async with unharmed(served, num_events=1):
            reply = await post_bytes(served, path, orjson.dumps(body))
            assert reply.status == 200, await reply.text()
            text = await reply.text()
            assert text.endswith("data: [DONE]\n\n") == body["stream"]


async def post_bytes(
    served: Serving, path: str, body: bytes, content_type: str = "application/json"
) -> aiohttp.ClientResponse:
    """POST a body as it is."""
    headers = {"Content-Type": content_type}
    reply = await served.session.post(served.url + path, data=BytesIO(body), headers=headers)
    await reply.read()
    return reply


async def error_of(reply: aiohttp.ClientResponse) -> dict[str, Any]:
    """OpenAI's error object: four keys, a message for people, nothing of ours inside."""
    assert reply.content_type == "application/json"
    body = await reply.json()
    assert set(body) == {"error"}
    error: dict[str, Any] = body["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["type"] == "invalid_request_error"
    assert 10 < len(error["message"]) < 400
    for leak in ("Traceback", "0x", "/home", "site-packages", "Error("):
        assert leak not in error["message"]
    return error
