"""Health checks: a code for each state, path by path, as the settings say."""

from typing import Any

import pytest

from provider_core.errors import EngineDead
from tests.serving import Serving, serving

PROBES = {
    "/ping": {"starting": 204, "ready": 201, "failing": 418, "draining": 410},
    "/health/platform": {},
}


async def get(served: Serving, path: str) -> tuple[int, Any]:
    """A GET's status and body, if it has one."""
    async with served.session.get(served.url + path) as reply:
        return reply.status, await reply.json() if reply.status != 204 else await reply.read()


async def test_the_state_decides_the_code(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a built-in path that is changed, and of one that is new; others stay as they are."""
    async with serving(load=False, probes=PROBES) as served:
        assert await get(served, "/ping") == (204, b"")
        assert (await get(served, "/health/platform"))[0] == 503
        assert (await get(served, "/readyz"))[0] == 503
        await served.server.load()
        assert await get(served, "/ping") == (201, {"status": "ready", "reason": "ready"})
        assert (await get(served, "/health/platform"))[0] == 200

        (model,) = served.server.models

        def die() -> None:
            raise EngineDead("device lost")

        monkeypatch.setattr(model.engine, "check_health", die)
        reason = "model test-model: device lost"
        assert await get(served, "/ping") == (418, {"status": "failing", "reason": reason})
        assert (await get(served, "/readyz"))[0] == 503
        assert (await get(served, "/startupz"))[0] == 200
        assert (await get(served, "/livez"))[0] == 200


async def test_kserve_asks_for_the_server_and_for_each_model() -> None:
    """By the paths of the Open Inference Protocol; a model by its id or an alias, slashes too."""
    async with serving(load=False) as served:
        assert (await get(served, "/v2/health/live"))[0] == 200
        assert (await get(served, "/v2/health/ready"))[0] == 503
        assert (await get(served, "/v2/models/test-model/ready"))[0] == 404
        await served.server.load()
        assert (await get(served, "/v2/health/ready"))[0] == 200
        expected = {"name": "test-model", "ready": True}
        assert await get(served, "/v2/models/test-model/ready") == (200, expected)
        assert await get(served, "/v2/models/openai/gpt-test/ready") == (200, expected)
        assert (await get(served, "/v2/models/other/ready"))[0] == 404
