"""A server that may open few files: idle connections, however many, keep nobody out."""

import asyncio
import json
import re
import sys
from contextlib import AsyncExitStack, closing
from pathlib import Path

import aiohttp

ROOT = Path(__file__).parents[2]
KEY = "sk-few-descriptors"
NUM_FILES = 150
NUM_IDLE = 200


async def start(folder: Path) -> asyncio.subprocess.Process:
    """Serve the model in the package."""
    serve = f"ulimit -n {NUM_FILES}; exec {sys.executable} -m provider_core serve --port 0"
    return await asyncio.create_subprocess_exec(
        *("sh", "-c", f"{serve} --data-dir {folder / 'data'}"),
        cwd=folder,
        env={
            "PYTHONPATH": f"{ROOT}:{ROOT / 'plugins'}",
            "PROVIDER_PLUGINS": "starter,onnxruntime",
            "PROVIDER_API_KEY": KEY,
        },
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def port_of(server: asyncio.subprocess.Process) -> int:
    """Where it listens, once it serves."""
    assert server.stderr is not None
    async for line in server.stderr:
        if found := re.search(rb"listens on http://127\.0\.0\.1:(\d+)", line):
            return int(found[1])
    raise AssertionError("it did not start")


async def test_idle_connections_keep_nobody_out_of_few_descriptors(tmp_path: Path) -> None:
    """The cap is what the system allows, so the one idle longest is displaced before a reset."""
    server = await start(tmp_path)
    try:
        async with asyncio.timeout(50), AsyncExitStack() as idle:
            port = await port_of(server)
            for _ in range(NUM_IDLE):
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                idle.enter_context(closing(writer))
            async with (
                aiohttp.ClientSession() as session,
                session.get(
                    f"http://127.0.0.1:{port}/v1/models",
                    headers={"Authorization": f"Bearer {KEY}"},
                ) as response,
            ):
                assert response.status == 200
    finally:
        server.terminate()
        out, _ = await server.communicate()
    lines = [json.loads(line) for line in out.splitlines()]
    (capped,) = [line for line in lines if line["event"] == "connections.capped"]
    assert (capped["max_connections"], capped["wanted"]) == (NUM_FILES // 2, 2048)
