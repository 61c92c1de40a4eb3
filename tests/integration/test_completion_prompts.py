"""Prompts of text completions from end to end: none at all, lists, ids."""

from typing import Any

import pytest

from tests.serving import Serving, saying, serving
from tests.sse_checker import check_stream

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


@pytest.mark.parametrize("echo", [False, True])
async def test_no_tokens_are_made_where_none_are_wanted(*, echo: bool) -> None:
    """`max_tokens: 0` scores the prompt, for the price of the prompt (R13)."""
    async with serving(saying("Hello!")) as served:
        fields = {"prompt": ["ab", "c"], "max_tokens": 0, "echo": echo, "logprobs": 1, "n": 2}
        body = await complete(served, **fields)
        streamed = await served.post(
            "/v1/completions", {"model": "test-model", "stream": True, **fields}
        )
        bills = served.usage.events
    shown = ["ab", "ab", "c", "c"] if echo else [""] * 4
    assert [choice["text"] for choice in body["choices"]] == shown
    assert {choice["finish_reason"] for choice in body["choices"]} == {"length"}
    if echo:
        assert body["choices"][0]["logprobs"]["tokens"] == ["a", "b"]
    stream = check_stream(await streamed.read(), kind="completion", num_choices=4)
    assert stream.texts == dict(enumerate(shown))
    for bill in bills:
        assert (bill["status"], bill["billing_rule"]) == ("ok", "R13")
        assert (bill["prompt_tokens"], bill["completion_tokens"]) == (3, 0)


async def test_the_bill_counts_the_choices_returned_and_every_token_made() -> None:
    """Of `best_of` sequences `n` come back; all of them were generated (R15, R16)."""
    async with serving(saying("Hello!")) as served:
        body = await complete(served, prompt=["ab", "c"], n=2, best_of=3)
        [bill] = served.usage.events
    assert [choice["index"] for choice in body["choices"]] == [0, 1, 2, 3]
    assert bill["n"] == 4
    assert bill["completion_tokens"] == body["usage"]["completion_tokens"] == 6 * len("Hello!.")
