"""Prompts of text completions from end to end: none at all, lists, ids."""

from typing import Any

import pytest

from tests.serving import Serving, saying, serving

NO_PROMPT: list[dict[str, Any]] = [{}, {"prompt": None}, {"prompt": ""}]


async def complete(served: Serving, **fields: Any) -> dict[str, Any]:
    """The whole answer to a completion request."""
    reply = await served.post("/v1/completions", {"model": "test-model", **fields})
    assert reply.status == 200, await reply.text()
    body: dict[str, Any] = await reply.json()
    return body


@pytest.mark.parametrize("fields", NO_PROMPT, ids=["absent", "null", "empty"])
async def test_without_a_prompt_a_document_is_begun(fields: dict[str, Any]) -> None:
    """It costs the one id that starts documents, which no echo shows."""
    async with serving(saying("Hello!")) as served:
        body = await complete(served, echo=True, logprobs=1, **fields)
    [choice] = body["choices"]
    assert choice["text"] == "Hello!"
    assert body["usage"]["prompt_tokens"] == 1
    assert choice["logprobs"]["token_logprobs"][0] is None
    assert choice["logprobs"]["text_offset"][:2] == [0, 0]
