"""The whole checklist against our own server with the built-in model: nothing may fail."""

import asyncio
import json
from collections.abc import AsyncIterator
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from provider_core import Encoder, ModelRunner, ModelSpec
from provider_core.cli.check_session import CheckOptions, run_check_session
from provider_core.conformance.checks import select_checks
from provider_core.conformance.endpoint import make_endpoint
from provider_core.conformance.probe import Plan
from provider_core.conformance.runner import run_checks
from provider_onnxruntime import load_model
from provider_starter import MODEL_DIR
from tests.serving import KEY, Serving, serving

PRICING = {"prompt": "0.000001", "completion": "0.000002", "input_cache_read": "0.0000001"}
UNSEEN = {  # what this server and model cannot show, by its reason
    "images.jpeg": "reads text only",
    "images.png": "reads text only",
    "images.gif": "reads text only",
    "images.webp": "reads text only",
    "images.several": "reads text only",
    "images.url": "reads text only",
    "limits.https": "on this machine",
    "pages.terms_of_service_url": "set `terms_of_service_url`",
    "pages.pricing_url": "set `pricing_url`",
    "pages.status_page_url": "set `status_page_url`",
}
PLAN = Plan(num_parallel=4, num_burst=40, num_long_tokens=1000)
MAY_DOUBT = {
    "limits.headers",  # this key has no limit
    "accounts.limit",  # of any kind
    "chat.cancel",  # a busy machine is slow whoever left
    "load.quality",  # rows of a batch may round differently
}


def load(spec: ModelSpec) -> ModelRunner | Encoder:
    """Load the model, which is there."""
    runner = load_model(spec, Path(spec.source))
    assert runner is not None
    return runner


@pytest.fixture
async def served() -> AsyncIterator[Serving]:
    """The built-in model with prices, under an id with a slash."""
    model = {
        "id": "acme/starter",
        "source": str(MODEL_DIR),
        "max_model_len": 2048,
        "max_num_seqs": 4,
        "pricing": PRICING,
    }
    async with serving(load, models=(model,), logging={"level": "error"}) as running:
        yield running


@pytest.mark.timeout(300)
async def test_no_check_fails(served: Serving, tmp_path: Path) -> None:
    """All of them, the slow ones too; the questionnaires are filled in."""
    config = tmp_path / "provider.toml"
    page = f"{served.url}/livez"  # any that needs no key
    config.write_text(
        f'[provider]\nname = "Acme"\nprivacy_policy_url = "{page}"\ndocs_url = "{page}"\n'
        '[[model]]\nid = "acme/starter"\nsource = "x"\n'
    )
    said = StringIO()
    options = CheckOptions(
        url=served.url,
        key=KEY,
        config=config,
        plan=PLAN,
        markdown=tmp_path / "checklist.md",
        json_file=tmp_path / "check.json",
    )
    code = await asyncio.to_thread(run_check_session, options, Console(file=said, width=200))
    checks = json.loads((tmp_path / "check.json").read_bytes())["checks"]
    results = {check["id"]: (check["status"], check["detail"]) for check in checks}

    def ended(status: str) -> dict[str, str]:
        return {name: detail for name, (found, detail) in results.items() if found == status}

    assert ended("fail") == {}
    assert code == 0
    assert ended("warn").keys() - MAY_DOUBT == set()
    unseen = ended("not_applicable")
    assert unseen.keys() == UNSEEN.keys()
    assert all(UNSEEN[name] in detail for name, detail in unseen.items())
    form = (tmp_path / "checklist.md").read_text(encoding="utf-8")
    assert "- [x] Company name provided\n  - provider.toml: Acme" in form
    assert "FAILED" not in form
    assert KEY not in said.getvalue() + form


@pytest.mark.timeout(200)
async def test_no_check_fails_in_openrouters_variant(served: Serving) -> None:
    """Of the groups that look at what differs there."""
    checks = select_checks(("models", "completions", "errors", "listings"))
    endpoint = make_endpoint(served.url + "/api/v1", key=KEY)
    report = await run_checks(endpoint, checks, quick=True, plan=PLAN)

    assert [result for result in report.results if result.status == "fail"] == []
    assert report.count("pass") >= 20


@pytest.mark.soak
@pytest.mark.timeout(600)
async def test_a_stream_of_ten_thousand_tokens(served: Serving) -> None:
    """In several choices, since this model's context is set to 2,048 here."""
    checks = [check for check in select_checks(("chat",)) if check.id == "chat.long_stream"]
    report = await run_checks(make_endpoint(served.url, key=KEY), checks)

    assert [result.status for result in report.results] == ["pass"]
