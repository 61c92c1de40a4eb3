"""Anthropic's and Google's JavaScript clients on the real server; `make clients` installs them."""

import asyncio
import json
import time
from typing import Any

import pytest

from provider_core.interfaces import Batch
from tests.contract.test_node_clients import FOLDER, NODE
from tests.serving import HERMES, KEY, saying, serving

TOOL = {
    "name": "look",
    "description": "Look somewhere",
    "parameters": {
        "type": "object",
        "properties": {"at": {"type": "string"}},
        "required": ["at"],
    },
}
CALL = '<tool_call>\n{"name": "look", "arguments": {"at": "me"}}\n</tool_call>'
REPLY = "<think>\nhm\n</think>\nI look." + CALL
KEEPALIVE_S = 0.05

pytestmark = [
    pytest.mark.node,
    pytest.mark.skipif(NODE is None, reason="node is not installed"),
    pytest.mark.skipif(
        not (FOLDER / "node_modules").is_dir(), reason="run make client-packages first"
    ),
]


class Silence:
    """Makes a runner slow before its first token and between two, so that streams fall silent."""

    def __init__(self) -> None:
        self._num_steps = 0

    def __call__(self, _: Batch) -> None:
        """Wait before every fortieth step, and the first."""
        if self._num_steps % 40 == 0:
            time.sleep(4 * KEEPALIVE_S)  # the silence under test
        self._num_steps += 1


async def run_node(**wanted: Any) -> list[dict[str, Any]]:
    """Have one client ask in every way; return what it saw of each."""
    process = await asyncio.create_subprocess_exec(
        str(NODE),
        "dialects.mjs",
        cwd=FOLDER,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    output, _ = await process.communicate(json.dumps({"key": KEY, "tool": TOOL, **wanted}).encode())
    assert process.returncode == 0
    return [json.loads(line) for line in output.splitlines()]


@pytest.mark.parametrize(
    ("client", "version", "reason", "models", "error"),
    [
        ("anthropic", None, "tool_use", ["test-model"], ["NotFoundError", 404]),
        ("google", "v1beta", "STOP", ["models/test-model"], ["ApiError", 404]),
        ("google", "v1", "STOP", ["models/test-model"], ["ApiError", 404]),
    ],
)
async def test_bug_12_a_conversation_reaches_the_user_through_silence(
    client: str, version: str | None, reason: str, models: list[str], error: list[Any]
) -> None:
    """Thinking, text, a call, counts: streamed as whole; tokens counted, models, an error."""
    runner = saying(REPLY, on_execute=Silence())
    limits = {"sse_keepalive_s": KEEPALIVE_S}
    async with serving(runner, chat_template=HERMES, limits=limits) as served:
        lines = await run_node(client=client, url=served.url, version=version)
    whole, streamed, rest = lines

    assert streamed == whole
    assert whole["thinking"].strip() == "hm"
    assert whole["text"] == "I look."
    assert whole["calls"] == [["look", {"at": "me"}]]
    assert whole["reason"] == reason
    assert (rest["models"], rest["error"]) == (models, error)
    if client == "anthropic":  # Google's package counts no tools
        assert rest["counted"] == whole["tokens"][0]
