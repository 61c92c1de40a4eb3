"""Every published client, unchanged: only address and key differ.

Each is a program of its own, in Python or in JavaScript, that goes through the same conversation:
a text, streamed and whole; a call, asked for and forced, whole and streamed; its result; a document
by a schema; an image; refusals of a wrong key, an unknown model, an image that the model cannot
see, a text that is too long; and leaving in the middle. `make client-packages` installs what is not
installed for development anyway.
"""

import asyncio
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.clients.answers import CALLS, DOCUMENT, HELLO, LONG, TOLD, answering
from tests.clients.installed import FOLDER, NODE, NODE_MARKS, OWN_MARKS, OWN_PYTHON
from tests.integration.test_images import seeing
from tests.serving import KEY

_TEXTS = ("whole", "streamed")
EXPECTED: dict[str, Any] = {
    "called": CALLS,
    "forced": CALLS,
    "called in a stream": CALLS,
    "told": TOLD,
    "document": DOCUMENT,
    "seen": "I see.",
}
REFUSALS = ("wrong key", "unknown model", "picture", "too long")


@dataclass(frozen=True)
class Client:
    """A client and how its users know it.

    Attributes:
        errors: The classes of what it raises for each of `REFUSALS`.
        lacks: What it cannot do at all.
        unknown_status: What an unknown model is answered with.
    """

    name: str
    errors: tuple[str, ...]
    command: tuple[str, ...] = (sys.executable, "run.py")
    folder: Path = FOLDER / "python"
    lacks: frozenset[str] = field(default_factory=frozenset)
    unknown_status: int = 404


# LiteLLM would ask the network for prices.
OWN = ("/usr/bin/env", "LITELLM_LOCAL_MODEL_COST_MAP=True", str(OWN_PYTHON), "run.py")
_OPENAI_ERRORS = ("AuthenticationError", "NotFoundError", "BadRequestError", "BadRequestError")
_OPENROUTER_ERRORS = ("UnauthorizedResponseError", *("BadRequestResponseError",) * 3)
CLIENTS = [
    Client("openai", _OPENAI_ERRORS),
    Client("anthropic", _OPENAI_ERRORS),
    Client("google", ("ClientError",) * 4),
    Client("openrouter", _OPENROUTER_ERRORS, unknown_status=400),
    Client("litellm", (*_OPENAI_ERRORS[:3], "ContextWindowExceededError"), OWN),
    Client(
        "langchain",
        (
            *("OpenAIAuthenticationError", "OpenAIModelNotFoundError", "OpenAIInvalidRequestError"),
            "OpenAIContextOverflowError",
        ),
        OWN,
    ),
    Client("instructor", _OPENAI_ERRORS, OWN, lacks=frozenset({"streamed", "told"})),
]


async def talk(client: Client, url: str, seeing_url: str) -> dict[str, Any]:
    """Run a client's program; what it saw, by case."""
    process = await asyncio.create_subprocess_exec(
        *client.command,
        cwd=client.folder,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    wanted = {"client": client.name, "url": url, "seeing_url": seeing_url, "key": KEY}
    output, _ = await process.communicate(json.dumps(wanted).encode())
    assert process.returncode == 0
    lines = [json.loads(line) for line in output.splitlines()]
    return {line.pop("case"): line for line in lines}


def _nodes() -> Iterator[Client]:
    """The clients of npm; `runs` of each is the same program."""
    errors = {
        "openai": _OPENAI_ERRORS,
        "openrouter": _OPENROUTER_ERRORS,
        "vercel": ("APICallError",) * 4,
        "anthropic": _OPENAI_ERRORS,
        "google": ("ApiError",) * 4,
    }
    for name, classes in errors.items():
        yield Client(
            name,
            classes,
            (NODE or "node", "conversation.mjs"),
            FOLDER / "node",
            unknown_status=400 if name in {"openrouter", "vercel"} else 404,  # under /api/v1
        )


def _each() -> Iterator[Any]:
    """All clients, those skipped that are not installed."""
    for client in CLIENTS:
        marks = OWN_MARKS if client.command is OWN else ()
        yield pytest.param(client, id=client.name, marks=marks)
    for client in _nodes():
        yield pytest.param(client, id=f"{client.name}-js", marks=NODE_MARKS)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("client", list(_each()))
async def test_a_conversation(client: Client, tmp_path: Path) -> None:
    """BUG-01, 02, 03, 14, 24: every case, and what is billed for the one who left."""
    async with answering() as served, seeing(tmp_path) as (seeing_one, _):
        seen = await talk(client, served.url, seeing_one.url)
        await served.settled()
        events = served.usage.events

    assert seen.keys() | client.lacks == {*_TEXTS, *EXPECTED, *REFUSALS, "left"}
    texts = [seen[name] for name in _TEXTS if name in seen]
    counts = [events[0]["prompt_tokens"], events[0]["completion_tokens"]]
    assert texts == [{"seen": {"text": HELLO, "usage": counts}}] * len(texts)
    for name, value in EXPECTED.items():
        if name not in client.lacks:
            assert seen[name] == {"seen": value}, name
    assert [seen[name].get("error") for name in REFUSALS] == list(client.errors)
    assert [seen[name]["status"] for name in REFUSALS] == [401, client.unknown_status, 400, 400]
    assert LONG.startswith(seen["left"]["seen"])
    assert [event["status"] for event in events] == ["ok"] * (len(events) - 1) + ["cancelled"]
    assert events[-1]["completion_tokens"] < len(LONG)
