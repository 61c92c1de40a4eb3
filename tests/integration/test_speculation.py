"""Speculation, seen from outside: the same answers and counts, in fewer steps."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from provider_core.testing import ScriptedRunner
from provider_core.types import ModelSpec
from tests.serving import Serving, saying, serving
from tests.sse_checker import check_stream

SONG = "Row, row, row your boat, gently down the stream. Row, row, row your boat again."


async def answers(served: Serving, fields: Mapping[str, Any]) -> tuple[dict[str, Any], bytes]:
    """A whole reply, and the bytes of a streamed one."""
    whole = await served.chat(SONG, **fields)
    streamed = await served.chat(
        SONG, stream=True, stream_options={"include_usage": True}, **fields
    )
    return await whole.json(), await streamed.read()


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"temperature": 1.0, "seed": 3},
        {"max_tokens": 17},
        {"stop": ["down the"]},
        {"logprobs": True, "top_logprobs": 2},
        {"min_tokens": 12, "frequency_penalty": 0.3},
    ],
    ids=str,
)
async def test_bug_18_counts_and_text_are_those_without(fields: dict[str, Any]) -> None:
    """Whole and streamed, whatever ends the reply and wherever in a run of accepted tokens."""
    seen = []
    for speculation in ("prompt_lookup", "off"):
        async with serving(saying(SONG), engine={"speculation": speculation}) as served:
            reply, stream = await answers(served, fields)
            load = next(iter(served.server.models)).engine.load()
        check = check_stream(stream, kind="chat", include_usage=True)
        [choice] = reply["choices"]
        entries = (choice.get("logprobs") or {}).get("content")
        num_tokens = reply["usage"]["completion_tokens"]
        assert check.usage == reply["usage"]
        assert entries is None or len(entries) == num_tokens
        seen.append(
            (choice["message"]["content"], choice["finish_reason"], reply["usage"], entries)
        )
        assert (load.num_accepted_tokens > 0) == (speculation != "off")
    assert seen[0] == seen[1]


async def test_a_deterministic_model_does_not_speculate() -> None:
    """Kernels for several tokens round otherwise than those for one."""
    async with serving(saying(SONG), deterministic=True) as served:
        reply, _ = await answers(served, {})
        load = next(iter(served.server.models)).engine.load()
    assert reply["choices"][0]["message"]["content"] == SONG
    assert load.num_draft_tokens == 0


@pytest.mark.parametrize(
    ("speculation", "verify_margin", "speculates"),
    [
        ("auto", 0.02, True),
        ("auto", 0.25, False),
        ("prompt_lookup", 0.25, True),
        ("prompt_lookup", None, False),
        ("off", 0.02, False),
    ],
)
async def test_drafts_that_may_change_the_text_are_tried_on_request_only(
    speculation: str, verify_margin: float | None, *, speculates: bool
) -> None:
    """By default the text for a seed is the same with drafts and without."""

    def make(model: ModelSpec) -> ScriptedRunner:
        runner = saying(SONG)(model)
        runner.info = replace(runner.info, verify_margin=verify_margin)
        return runner

    async with serving(make, engine={"speculation": speculation}) as served:
        reply, _ = await answers(served, {})
        load = next(iter(served.server.models)).engine.load()
    assert reply["choices"][0]["message"]["content"] == SONG
    assert (load.num_draft_tokens > 0) == speculates
