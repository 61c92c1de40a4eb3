"""Many clients at once, and very long streams."""

import asyncio
from typing import Any

import pytest

from tests.serving import Serving, scripted_runner, serving
from tests.sse_checker import check_stream


async def greedy_text(served: Serving, prompt: str, **fields: Any) -> str:
    """A greedy, whole completion's text."""
    response = await served.post(
        "/v1/completions",
        {"model": "test-model", "prompt": prompt, "temperature": 0, "max_tokens": 60, **fields},
    )
    body = await response.json()
    assert response.status == 200, body
    text: str = body["choices"][0]["text"]
    return text


@pytest.mark.parametrize("fields", [{}, {"temperature": 1, "seed": 7, "top_p": 0.9}])
async def test_32_clients_get_what_each_gets_alone(fields: dict[str, Any]) -> None:
    """Greedy and seeded texts do not depend on who else is being served."""
    prompts = [f"client {i} says " + "x" * i for i in range(32)]
    async with serving(scripted_runner(), max_num_seqs=32) as served:
        alone = [await greedy_text(served, prompt, **fields) for prompt in prompts]
        together = await asyncio.gather(
            *(greedy_text(served, prompt, **fields) for prompt in prompts)
        )
    assert together == alone
    assert len(set(alone)) == 32


async def test_a_stream_of_12000_tokens_arrives_whole() -> None:
    """`ignore_eos` and `max_tokens: 12000` give 12,000 tokens, `length`, and their usage."""
    async with serving(scripted_runner(), max_model_len=16384) as served:
        response = await served.post(
            "/v1/chat/completions",
            {
                "model": "test-model",
                "messages": [{"role": "user", "content": "go on"}],
                "stream": True,
                "stream_options": {"include_usage": True},
                "ignore_eos": True,
                "max_tokens": 12000,
            },
        )
        stream = check_stream(await response.read(), kind="chat", include_usage=True)
    assert stream.finish_reasons == {0: "length"}
    assert stream.usage is not None
    assert stream.usage["completion_tokens"] == 12000


async def test_one_key_waits_behind_nobody_elses_crowd() -> None:
    """More requests than slots are all served, each once."""
    async with serving(scripted_runner(), max_num_seqs=2) as served:
        replies = await asyncio.gather(*(served.chat(max_tokens=5) for _ in range(6)))
    assert [reply.status for reply in replies] == [200] * 6
