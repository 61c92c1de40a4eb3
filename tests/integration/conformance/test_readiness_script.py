"""A readiness script for OpenRouter's clients passes here with host, key and models changed."""

import asyncio
import shutil
import sys
from pathlib import Path

import pytest

from provider_core.conformance.checks import select_checks
from provider_core.conformance.endpoint import make_endpoint
from provider_core.conformance.runner import run_checks
from tests.integration.conformance import jq_stand_in
from tests.serving import saying, serving

SCRIPT = Path(__file__).parents[2] / "data" / "readiness.sh"
KEY = "sk-readiness-0123456789abcdef"
PASSED = [
    "1. API Authentication: PASS (Readiness)",
    "2. Credit Limit: PASS ($25)",
    "3. Primary Model Available: PASS (test-model)",
    "4. Test Request: PASS",
    "5. No Hardcoded Keys: PASS",
    "",
    "Results: 5 passed, 0 failed",
    "READY FOR PRODUCTION",
]


def keys_file(folder: Path, *, limit: str) -> Path:
    """A file with one key."""
    file = folder / "keys.toml"
    secret = 'secrets = ["env://READINESS_KEY"]'
    file.write_text(f'[[key]]\nid = "readiness"\nlabel = "Readiness"\n{secret}\n{limit}\n')
    return file


async def run_script(url: str, folder: Path, *, has_jq: bool) -> list[str]:
    """Run it in an empty folder; its lines."""
    script = SCRIPT.read_text(encoding="utf-8").replace("https://openrouter.ai", url)
    for model in ("anthropic/claude-3.5-sonnet", "openai/gpt-4o-mini"):
        script = script.replace(model, "test-model")
    tools, work = folder / "tools", folder / "work"
    tools.mkdir()
    work.mkdir()
    if not has_jq:
        jq = tools / "jq"
        jq.write_text(f'#!/bin/sh\nexec {sys.executable} {jq_stand_in.__file__} "$@"\n')
        jq.chmod(0o755)
    path = f"{tools}:/usr/local/bin:/usr/bin:/bin"
    process = await asyncio.create_subprocess_exec(
        "bash",
        "-c",
        script,
        cwd=work,
        env={"PATH": path, "OPENROUTER_API_KEY": KEY, "LC_ALL": "C.UTF-8"},
        stdout=asyncio.subprocess.PIPE,
    )
    said, _ = await process.communicate()
    return said.decode().splitlines()


@pytest.mark.parametrize("has_jq", [False, True] if shutil.which("jq") else [False])
async def test_the_script_is_ready_for_production(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, has_jq: bool
) -> None:
    """With a key that has a credit limit."""
    monkeypatch.setenv("READINESS_KEY", KEY)
    access = {"keys_file": keys_file(tmp_path, limit='spend_limit = "25"')}
    async with serving(saying("Hi!"), access=access) as served:
        lines = await run_script(served.url, tmp_path, has_jq=has_jq)

    assert lines == ["=== OpenRouter Production Readiness ===", *PASSED]


async def test_a_key_without_a_limit_is_not_ready(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The script means what it says."""
    monkeypatch.setenv("READINESS_KEY", KEY)
    access = {"keys_file": keys_file(tmp_path, limit="")}
    async with serving(saying("Hi!"), access=access) as served:
        lines = await run_script(served.url, tmp_path, has_jq=False)

    assert "2. Credit Limit: WARN (no limit set)" in lines
    assert lines[-2:] == ["Results: 4 passed, 1 failed", "FIX FAILURES BEFORE LAUNCH"]


async def test_a_limited_key_leaves_nothing_to_doubt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its headers say how much is left, its account what it may spend."""
    monkeypatch.setenv("READINESS_KEY", KEY)
    limits = 'spend_limit = "25"\nrequests_per_minute = 600'
    access = {"keys_file": keys_file(tmp_path, limit=limits)}
    async with serving(saying("Hi!"), access=access) as served:
        endpoint = make_endpoint(served.url, key=KEY)
        report = await run_checks(endpoint, select_checks(("limits", "accounts")))
    found = {result.check.id: result.status for result in report.results}

    assert found.pop("limits.https") == "not_applicable"
    assert set(found.values()) == {"pass"}, report.results
