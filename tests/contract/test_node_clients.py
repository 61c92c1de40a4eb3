"""Published JavaScript clients against the real server; `make clients` installs them.

OpenRouter's package validates every chunk by a closed schema, and its provider for the AI SDK drops
a whole chunk for one field of a wrong type.
"""

import asyncio
import json
import shutil
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.contract.chat_scenarios import SCENARIOS, Scenario, request_of
from tests.serving import HERMES, KEY, saying, serving

NODE = shutil.which("node")
FOLDER = Path(__file__).parents[1] / "clients" / "node"
# What not every client can say, and arguments that are cut and so no JSON.
UNASKED = {"two choices", "a function of the old kind", "a cut call"}
SKIPPED = {
    "openai": set[str](),
    "openrouter": {"hidden reasoning"},  # the package drops `exclude`
    # The AI SDK asks in its own words for these, or not at all.
    "vercel": {"a required call", "a named call", "tools that must not be called"},
}

pytestmark = [
    pytest.mark.node,
    pytest.mark.timeout(300),
    pytest.mark.skipif(NODE is None, reason="node is not installed"),
    pytest.mark.skipif(
        not (FOLDER / "node_modules").is_dir(), reason="run make client-packages first"
    ),
]


async def run_node(client: str, requests: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Send requests with one client; return what it saw of each."""
    process = await asyncio.create_subprocess_exec(
        str(NODE),
        "run.mjs",
        cwd=FOLDER,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    wanted = {"client": client, "key": KEY, "requests": requests}
    output, _ = await process.communicate(json.dumps(wanted).encode())
    assert process.returncode == 0
    return [json.loads(line) for line in output.splitlines()]


def expected(scenario: Scenario) -> dict[str, Any]:
    """What a client must see."""
    return {
        "text": scenario.text,
        "reasoning": scenario.reasoning,
        "calls": [[name, json.loads(arguments)] for name, arguments in scenario.calls],
        "reason": scenario.reason,
    }


def parsed(seen: dict[str, Any]) -> dict[str, Any]:
    """The same with arguments as objects, which some clients parse themselves."""
    return seen | {"calls": [[name, json.loads(text)] for name, text in seen["calls"]]}


@pytest.mark.parametrize("client", SKIPPED)
async def test_chats_of_every_kind_reach_the_user(client: str) -> None:
    """BUG-01, 02, 03, 29: contract 14.2 and 14.3, streamed and whole."""
    names = sorted(SCENARIOS.keys() - UNASKED - SKIPPED[client])
    async with AsyncExitStack() as stack:
        requests = []
        for name in names:
            scenario = SCENARIOS[name]
            served = await stack.enter_async_context(
                serving(saying(scenario.says), chat_template=HERMES)
            )
            requests.append({"url": served.url, "body": request_of(scenario)})
        lines = await run_node(client, requests)
    for name, line in zip(names, lines, strict=True):
        assert "error" not in line, f"{name}: {line}"
        for seen in line["seen"]:
            assert parsed(seen) == expected(SCENARIOS[name]), name
