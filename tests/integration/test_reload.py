"""A configuration that changes while its models are served."""

import asyncio
import threading
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import Mock, patch
from weakref import WeakKeyDictionary

import pytest
from structlog.testing import capture_logs

from provider_core import PluginError
from provider_core.interfaces import ModelRunner
from provider_core.plugins import PluginManager
from provider_core.server import models as served_models
from provider_core.server.reload import ConfigurationFile, Reloader
from provider_core.settings import load_settings
from provider_core.testing import ScriptedRunner
from provider_core.types import ModelSpec
from tests.serving import VOCAB_SIZE, Serving, make_model_dir, saying, serving


def reloader_of(served: Serving, wanted: list[ModelSpec]) -> Reloader:
    """A reloader whose file is a list."""
    now = list(wanted)
    return Reloader(served.server.models, lambda: list(wanted), None, asyncio.Event(), now)


async def test_models_are_added_changed_and_removed_while_serving(tmp_path: Path) -> None:
    """A new configuration is served without a restart."""
    folder = make_model_dir(tmp_path / "second")
    first = ModelSpec(id="first", source=str(folder), max_num_seqs=2)
    wanted = [first]
    async with serving() as served:
        models = served.server.models
        await models.load(first)
        reloader = reloader_of(served, wanted)
        wanted[:] = [
            replace(first, aliases=("other-name",)),
            ModelSpec(id="second", source=str(folder), max_num_seqs=2),
        ]
        await reloader.reload()
        assert {spec.id for spec in models.specs} == {"test-model", "first", "second"}
        assert models.find("other-name") is models.find("first")
        wanted[:] = [replace(first, is_ready=False)]
        await reloader.reload()
        async with served.session.get(f"{served.url}/v1/models") as listing:
            assert listing.status == 200
            listed = await listing.json()
        assert {item["id"] for item in listed["data"]} == {"test-model", "first"}
        response = await served.post(
            "/v1/completions", {"model": "first", "prompt": "x", "max_tokens": 1}
        )
        assert response.status == 503


async def test_facts_change_before_anything_waits_for_requests(tmp_path: Path) -> None:
    """A price of one model waits for no request of another; that one is replaced when it ends."""
    folder = str(make_model_dir(tmp_path / "model"))
    first, second = (ModelSpec(id=name, source=folder, max_num_seqs=2) for name in ("one", "two"))
    go_on = threading.Event()
    wanted = [first, second]
    async with serving(saying("Hello!", on_execute=lambda _: go_on.wait(30))) as served:
        models = served.server.models
        for spec in wanted:
            await models.load(spec)
        reloader = reloader_of(served, wanted)
        body = {"model": "one", "prompt": "x", "max_tokens": 3}
        running = asyncio.create_task(served.post("/v1/completions", body))
        await served.wait_until(lambda: bool(served.server.dispatcher.runs))
        wanted[:] = [replace(first, max_num_seqs=1), replace(second, aliases=("other-name",))]
        is_working = Mock(wraps=served_models._is_working)
        with patch.multiple(served_models, _PREPARING_S=0.1, _is_working=is_working):
            reloading = asyncio.create_task(reloader.reload())
            await served.wait_until(lambda: len(models.specs) == 2)
            assert models.find("other-name").spec.id == "two"
            await served.wait_until(lambda: is_working.call_count > 5)  # for 0.1 s and more
            assert not reloading.done()
            go_on.set()
            await reloading
        assert (await running).status == 200
        assert models.find("one").spec.max_num_seqs == 1


@pytest.mark.parametrize("trouble", [RuntimeError("a plugin's own"), PluginError("refused")])
async def test_a_model_that_cannot_be_loaded_takes_nothing_away(
    tmp_path: Path, trouble: Exception
) -> None:
    """What was served is served again, and the next good configuration is taken."""
    folder = make_model_dir(tmp_path / "first")
    first = ModelSpec(id="first", source=str(folder), max_num_seqs=2)
    wanted = [first]

    def make_runner(spec: ModelSpec) -> ModelRunner:
        if spec.options.get("broken"):
            raise trouble
        return saying("Hello!")(spec)

    async with serving(make_runner) as served:
        models = served.server.models
        await models.load(first)
        reloader = reloader_of(served, wanted)
        for bad in (replace(first, options={"broken": True}), replace(first, max_model_len=10**9)):
            wanted[:] = [bad, replace(first, id="new", options={"broken": True})]
            await reloader.reload()
            assert {spec.id for spec in models.specs} == {"test-model", "first"}
        wanted[:] = [first, replace(first, id="new")]
        await reloader.reload()
        assert {spec.id for spec in models.specs} == {"test-model", "first", "new"}


async def test_a_model_that_was_refused_is_not_tried_again_before_it_changes(
    tmp_path: Path,
) -> None:
    """What serves in its place is loaded again once, and then left alone with what it caches."""
    first = ModelSpec(id="first", source=str(make_model_dir(tmp_path / "first")), max_num_seqs=2)
    broken = replace(first, options={"broken": True})
    wanted, loaded = [first], list[ModelSpec]()

    def make_runner(spec: ModelSpec) -> ModelRunner:
        loaded.append(spec)
        if spec.options.get("broken"):
            raise PluginError("refused")
        return saying("Hello!")(spec)

    async with serving(make_runner) as served:
        models = served.server.models
        await models.load(first)
        reloader = reloader_of(served, wanted)
        wanted[:] = [broken]
        loaded.clear()
        await reloader.reload()
        assert [bool(spec.options) for spec in loaded] == [True, False]
        serves = models.find("first")

        loaded.clear()
        with capture_logs() as logs:
            await reloader.reload()
        assert (loaded, models.find("first") is serves) == ([], True)
        assert [line["refused"] for line in logs] == [["first"]]

        wanted[:] = [replace(first, options={"repaired": True})]
        with capture_logs() as logs:
            await reloader.reload()
        assert [dict(spec.options) for spec in loaded] == [{"repaired": True}]
        assert [line["refused"] for line in logs if line["event"] == "config.reloaded"] == [[]]


@pytest.mark.parametrize(
    ("files", "fields"),
    [
        ({"tokenizer.json": '{"added_tokens": [], "model": 1}'}, {}),
        ({}, {"reasoning_parser": "unknown"}),
    ],
    ids=["broken tokenizer", "unknown parser"],
)
async def test_a_model_that_was_loaded_in_vain_makes_room_for_the_old_one(
    tmp_path: Path, files: dict[str, str], fields: dict[str, Any]
) -> None:
    """Two may not fit side by side: it is closed and forgotten before the old one loads again."""
    folder = make_model_dir(tmp_path / "bad")
    for name, text in files.items():
        (folder / name).write_text(text)
    first = ModelSpec(id="first", source=str(make_model_dir(tmp_path / "good")), max_num_seqs=2)
    bad = replace(first, source=str(folder), **fields)
    events = list[str]()
    in_memory = WeakKeyDictionary[ModelRunner, str]()

    class NotedRunner(ScriptedRunner):
        def close(self) -> None:
            events.append(f"close {in_memory[self]}")

    def make_runner(spec: ModelSpec) -> ModelRunner:
        name = Path(spec.source).name
        events.append(f"load {name} beside {[*in_memory.values()]}")
        runner = NotedRunner(
            max_num_seqs=2, max_model_len=spec.max_model_len, vocab_size=VOCAB_SIZE
        )
        in_memory[runner] = name
        return runner

    wanted = [first]
    async with serving(make_runner) as served:
        await served.server.models.load(first)
        reloader = reloader_of(served, wanted)
        wanted[:] = [bad]
        events.clear()
        await reloader.reload()
        assert events == [
            "close good",
            "load bad beside ['test-model']",
            "close bad",
            "load good beside ['test-model']",
        ]


async def test_what_changed_before_it_was_followed_is_heard(tmp_path: Path) -> None:
    """While a model loaded, or in the days between a snapshot and its copy."""
    first = ModelSpec(id="first", source=str(make_model_dir(tmp_path / "first")), max_num_seqs=2)
    wanted = [first]
    async with serving() as served:
        models = served.server.models
        await models.load(first)
        reloader = reloader_of(served, wanted)
        wanted[:] = [replace(first, aliases=("other-name",))]
        async with reloader.watching():
            await served.wait_until(lambda: models.find("first").spec.aliases == ("other-name",))


def test_a_setting_that_needs_a_restart_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its name in the file, never its value, for as long as the process runs with another."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "provider.toml"
    model = '[[model]]\nid = "a"\nsource = "a"\n'
    path.write_text(f"port = 8000\n{model}")
    read_settings = partial(load_settings, host="127.0.0.2")
    file = ConfigurationFile(read_settings(), read_settings, PluginManager())

    def named() -> list[list[str]]:
        with capture_logs() as logs:
            file.read_specs()
        return [line["settings"] for line in logs if line["event"] == "config.restart_needed"]

    assert named() == []
    path.write_text(f"port = 8000\nhost = '127.0.0.3'\n{model}name = 'Another'\n")
    assert named() == []  # the command line wins over the host
    path.write_text(f"port = 8001\n{model}[engine]\ntarget_itl_s = 0.3\n[provider]\nx = 1\n")
    assert named() == [["engine.target_itl_s", "port", "provider.x"]]
    assert named() == [["engine.target_itl_s", "port", "provider.x"]]
    path.write_text(f"port = 8000\n{model}")
    assert named() == []
