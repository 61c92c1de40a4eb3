"""docs/openrouter.md is held to the code: every route, field and word."""

import re
from pathlib import Path

from provider_core.dialects.openrouter.routing import _FIELDS, VARIANTS
from tests.serving import serving

PAGE = (Path(__file__).parents[3] / "docs" / "openrouter.md").read_text(encoding="utf-8")
OURS = ("openrouter", "model", "models", "providers", "generation", "key", "auth", "credits")


async def test_every_route_is_on_the_page() -> None:
    """Those of listings and accounts; a model's id stands as author and slug."""
    async with serving(load=False) as served:
        runner = served.server._runner
        assert runner is not None
        paths = {resource.canonical for resource in runner.app.router.resources()}
    ours = {
        re.sub(r"\{model\}", "{author}/{slug}", path)
        for path in paths
        if path.removeprefix("/api/v1").split("/")[1] in OURS and not path.startswith("/v1")
    }
    ours.discard("/api/v1/models/{author}/{slug}")  # OpenAI's clients ask that

    assert ours != set()
    assert {path for path in ours if f"GET {path}" not in PAGE} == set()


def test_every_routing_field_is_on_the_page() -> None:
    """And every variant of a model."""
    assert {name for name in _FIELDS if f"`{name}" not in PAGE} == set()
    assert {name for name in VARIANTS if f"`:{name}`" not in PAGE} == set()
