"""The listings of docs/writing-a-backend.md, run as they stand on the page."""

import json
import re
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from provider_core import CandidateRunner, ModelRunner, ModelSpec
from provider_core.plugins import PluginManager
from provider_core.testing import RunnerContract, decode_batch
from provider_core.testing.candidate_checks import SUM_TOLERANCE
from tests.serving import Serving, serving

PAGE = (Path(__file__).parents[2] / "docs/writing-a-backend.md").read_text(encoding="utf-8")
LISTINGS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
SPEC = ModelSpec(id="copy", source="copy", backend="example", max_num_seqs=3, max_model_len=128)


def run_listing() -> ModuleType:
    """The first listing, as the module that a reader makes of it."""
    module = ModuleType("provider_example")
    exec(LISTINGS[0], module.__dict__)  # noqa: S102 - our own page
    return module


BACKEND = run_listing()


class TestListing(RunnerContract):
    """It keeps every promise that the page asks for."""

    def make_runner(self) -> ModelRunner:
        """Three slots of 128 positions."""
        runner = BACKEND.load_model(SPEC)
        assert isinstance(runner, ModelRunner)
        return runner


def run_candidates_listing(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The listing of a runner that brings candidates, on top of the first."""
    monkeypatch.setitem(sys.modules, "provider_example", BACKEND)
    [listing] = [text for text in LISTINGS if "execute_candidates" in text]
    module = ModuleType("choosing_example")
    exec(listing, module.__dict__)  # noqa: S102 - our own page
    return module


class TestCandidatesListing(RunnerContract):
    """So does the one that leaves its logits where they are."""

    @pytest.fixture(autouse=True)
    def take_listing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """It imports the first listing as a reader's module does."""
        self.module = run_candidates_listing(monkeypatch)

    def make_runner(self) -> ModelRunner:
        """Three slots of 128 positions."""
        runner = self.module.ChoosingCopyRunner(SPEC)
        assert isinstance(runner, ModelRunner)
        assert isinstance(runner, CandidateRunner)
        return runner


def test_the_listing_adds_up_a_large_vocabulary(monkeypatch: pytest.MonkeyPatch) -> None:
    """As close as the contract wants it, which looks at the few ids of the listing only."""
    runner = run_candidates_listing(monkeypatch).ChoosingCopyRunner(SPEC)
    logits = np.random.default_rng(0).normal(0, 3, (2, 152_064)).astype(np.float32)
    monkeypatch.setattr(runner, "execute_model", lambda _batch: logits)

    found = runner.execute_candidates(decode_batch([1, 1], [5, 5]), np.ones(2, np.float32), {})

    wide = logits.astype(np.float64)
    expected = np.log(np.exp(wide).sum(axis=1))
    assert found.log_sum_exps.dtype == np.float32
    np.testing.assert_allclose(found.log_sum_exps, expected, rtol=0, atol=SUM_TOLERANCE)
    np.testing.assert_allclose(
        found.log_masses, expected - wide.max(axis=1), rtol=0, atol=SUM_TOLERANCE
    )


def test_a_complete_backend_is_short() -> None:
    """Fewer than 100 lines, and a plugin as it is."""
    manager = PluginManager()
    manager.register(BACKEND, "example")
    manager.check_pending()

    assert LISTINGS[0].count("\n") < 100
    assert [info.hooks for info in manager.describe()] == [("load_model",)]
    assert BACKEND.load_model(ModelSpec(id="copy", source="copy")) is None


async def stream(served: Serving, prompt: str, max_tokens: int) -> list[str]:
    """The pieces of a streamed completion."""
    body = {"model": "test-model", "prompt": prompt, "max_tokens": max_tokens, "temperature": 0}
    async with served.session.post(
        served.url + "/v1/completions", json={**body, "stream": True}
    ) as response:
        events = (await response.read()).split(b"\n\n")
    chunks = [json.loads(event[6:]) for event in events if event.startswith(b"data: {")]
    return [choice["text"] for chunk in chunks for choice in chunk["choices"]]


async def test_it_is_served() -> None:
    """In pieces, whole, and in chats."""
    async with serving(
        lambda model: BACKEND.load_model(replace(model, backend="example"))
    ) as served:
        pieces = await stream(served, "abc abc", 8)
        chat = await (await served.chat("again and", max_tokens=4)).json()

    assert "".join(pieces) == " abc abc"
    assert len([piece for piece in pieces if piece]) > 1
    assert chat["usage"]["completion_tokens"] == 4


def test_the_page_shows_the_contract() -> None:
    """Every promise is named, and no other."""
    told = set(re.findall(r"^\| `(test_\w+)` \|", PAGE, re.MULTILINE))

    assert told == {name for name in dir(RunnerContract) if name.startswith("test_")}


@pytest.mark.parametrize("listing", range(len(LISTINGS)))
def test_every_listing_is_python(listing: int) -> None:
    """What a reader pastes compiles."""
    compile(LISTINGS[listing], "writing-a-backend.md", "exec")
