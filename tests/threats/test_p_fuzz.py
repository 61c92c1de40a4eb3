"""P: random values in every known field; whatever they are, they are the client's fault."""

import random
from typing import Any

import orjson
import pytest

from provider_core.dialects.openai.protocol import ChatCompletionRequest, CompletionRequest
from provider_core.dialects.openai.unsupported import UNSUPPORTED_FIELDS
from tests.serving import Serving
from tests.threats.aftermath import unharmed
from tests.threats.refusals import CHAT, COMPLETIONS, PROMPTS, post_bytes

pytestmark = pytest.mark.asyncio(loop_scope="module")

NUM_REQUESTS = 800
FIELDS = sorted(
    {*ChatCompletionRequest.model_fields, *CompletionRequest.model_fields, *UNSUPPORTED_FIELDS}
)
VALUES: list[Any] = [
    *(None, True, False, 0, 1, 2, -1, 5, 64, 2**31, 2**53, 2**63 - 1, -(2**63), 0.0, -0.0, 0.5),
    *(1e308, 5e-324, "", "a", "test-model", "auto", "none", "\0", "\ud7ff", "\U0010ffff", "1" * 50),
    *(
        [],
        [[]],
        [0],
        [1, 2],
        ["a"],
        [None],
        [1.5],
        [True],
        [{}],
        ["a", 1],
        [[1], ["a"]],
        ["x"] * 70,
    ),
    *({}, {"a": 1}, {"1": 1}, {"type": "text"}, {"type": "json_object"}, {"include_usage": True}),
    *([{"role": "user", "content": "hi"}], [{"role": "assistant", "content": ""}]),
    *([{"role": "system", "content": "x"}], [{"role": "user", "content": [{"type": "text"}]}]),
    *(
        [{"role": "assistant", "content": "x"}],
        [{"role": "tool", "content": "", "tool_call_id": ""}],
    ),
    *([{"type": "function", "function": {"name": "f"}}], {"type": "function", "function": {}}),
]


def some_body(path: str, rng: random.Random) -> dict[str, Any]:
    """A good request in which up to three fields have any value at all."""
    body = {"model": "test-model", "max_tokens": 8, **PROMPTS[path]}
    for _ in range(rng.randint(1, 3)):
        body[rng.choice(FIELDS)] = rng.choice(VALUES)
    return body


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
async def test_p_random_values_never_end_in_a_server_error(served: Serving, path: str) -> None:
    """Served or refused in OpenAI's shape, each served one billed once, the slots free again."""
    rng = random.Random(path)  # noqa: S311 - the same values every time
    num_served = 0
    before = len(served.usage.lines)
    for _ in range(NUM_REQUESTS):
        body = some_body(path, rng)
        reply = await post_bytes(served, path, orjson.dumps(body))
        assert reply.status in {200, 400, 404, 429}, body
        if reply.status == 200:
            num_served += 1
            assert b'"error"' not in await reply.read(), body
        else:
            assert (await reply.json())["error"].keys() == {"message", "type", "param", "code"}
    async with unharmed(served):
        assert len(served.usage.lines) - before == num_served > 20
