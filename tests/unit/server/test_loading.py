"""Backends on their way: begun before they are asked for, taken up once, failures where awaited."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from threading import Event, current_thread
from unittest.mock import Mock, create_autospec

import pytest
from structlog.testing import capture_logs

from provider_core import ModelRunner, ModelSpec, hookimpl
from provider_core.errors import ConfigurationError, PluginError
from provider_core.interfaces import Engine
from provider_core.lifecycle import Lifecycle, State
from provider_core.plugins import make_plugin_manager
from provider_core.server.loading import BackendLoader
from provider_core.settings import Settings
from provider_core.sources.remote import FetchProgress
from provider_core.testing import ScriptedRunner
from tests.serving import make_model_dir

WAIT_S = 20
FetchingLoader = tuple[BackendLoader, "SlowFetcher"]


class WarmedRunner(ScriptedRunner):
    """Notes that it was warmed."""

    is_warm = False
    is_closed = False

    def warm_up(self) -> None:
        """Note it."""
        self.is_warm = True

    def close(self) -> None:
        """Note it."""
        self.is_closed = True


class SlowBackend:
    """A plugin that loads when the test lets it."""

    def __init__(self) -> None:
        self.go_on = Event()
        self.threads: list[str] = []
        self.runners: dict[str, WarmedRunner] = {}

    @hookimpl
    def load_model(self, model: ModelSpec) -> ModelRunner | None:
        """Load any model but `alien`."""
        self.threads.append(current_thread().name)
        assert self.go_on.wait(WAIT_S)
        if model.id == "alien":
            return None
        runner = WarmedRunner(max_num_seqs=1, max_model_len=model.max_model_len, vocab_size=8)
        self.runners[model.id] = runner
        return runner


@pytest.fixture
def backend() -> Iterator[SlowBackend]:
    """A plugin whose threads end with the test."""
    plugin = SlowBackend()
    yield plugin
    plugin.go_on.set()


@pytest.fixture
def lifecycle() -> Lifecycle:
    """Whose phases are timed."""
    return Lifecycle()


@pytest.fixture
def loader(backend: SlowBackend, lifecycle: Lifecycle, tmp_path: Path) -> BackendLoader:
    """Of a server with one plugin."""
    settings = Settings(plugins=(), data_dir=tmp_path / "data")
    plugins = make_plugin_manager(settings)
    plugins.register(backend, "slow")
    return BackendLoader(plugins, settings, lifecycle)


@pytest.fixture
def spec(tmp_path: Path) -> ModelSpec:
    """As configured."""
    return ModelSpec(id="tiny", source=str(make_model_dir(tmp_path / "tiny", max_model_len=64)))


def test_what_was_begun_is_taken_up_once(
    loader: BackendLoader, backend: SlowBackend, spec: ModelSpec
) -> None:
    """Asking for it loads nothing again; asking twice, as a reload does, loads anew."""
    loader.begin(spec)
    first = loader.load(spec)
    second = loader.load(spec)
    assert second is not first
    backend.go_on.set()
    assert first.backend.result(WAIT_S) is not second.backend.result(WAIT_S)
    assert backend.threads == ["load-tiny", "load-tiny"]


def test_another_configuration_is_not_taken_up(
    loader: BackendLoader, backend: SlowBackend, spec: ModelSpec, tmp_path: Path
) -> None:
    """The id alone says too little: its folder may be another."""
    loader.begin(spec)
    other = ModelSpec(id="tiny", source=str(make_model_dir(tmp_path / "b", max_model_len=32)))
    backend.go_on.set()
    fetched, folder = loader.load(other).fetched.result(WAIT_S)
    assert (fetched.max_model_len, folder) == (32, tmp_path / "b")


def test_what_is_loaded_is_kept_for_a_younger_configuration(
    loader: BackendLoader, backend: SlowBackend, spec: ModelSpec
) -> None:
    """With its prices and names; what needs other weights, or is gone, is closed."""
    backend.go_on.set()
    begun = [spec, replace(spec, id="longer"), replace(spec, id="gone")]
    for each in begun:
        loader.begin(each)
    loader.wait()
    backend.threads.clear()
    runners = dict(backend.runners)

    renamed = replace(spec, name="Tiny", aliases=("other",))
    longer = replace(spec, id="longer", max_model_len=32)
    loader.revise(Settings(), [renamed, longer])
    assert {name: runner.is_closed for name, runner in runners.items()} == {
        "tiny": False,
        "longer": True,
        "gone": True,
    }

    fetched, folder = loader.load(renamed).fetched.result(WAIT_S)
    assert (fetched.name, fetched.max_model_len, str(folder)) == ("Tiny", 64, spec.source)
    assert backend.threads == []
    assert loader.load(longer).backend.result(WAIT_S).info.max_model_len == 32
    loader.load(begun[2]).backend.result(WAIT_S)
    assert backend.threads == ["load-longer", "load-gone"]


def test_an_engine_that_is_let_go_is_closed(tmp_path: Path) -> None:
    """Before there is a loop; and what is fetched from now on goes where it is wanted now."""
    engine = create_autospec(Engine, instance=True)
    folders: list[Path] = []

    class Fetcher:
        @hookimpl
        def fetch_model(self, uri: str, cache_dir: Path) -> Path:
            folders.append(cache_dir)
            return Path(uri)

        @hookimpl
        def load_model(self) -> object:
            return engine

    plugins = make_plugin_manager(Settings(plugins=()))
    plugins.register(Fetcher(), "fetcher")
    model = ModelSpec(id="tiny", source=str(make_model_dir(tmp_path / "tiny", max_model_len=64)))
    loader = BackendLoader(plugins, Settings(data_dir=tmp_path / "old"), Lifecycle())
    loader.begin(model)
    loader.wait()

    loader.revise(Settings(data_dir=tmp_path / "new"), [])

    engine.close.assert_awaited_once_with()
    loader.load(model).backend.result(WAIT_S)
    assert folders == [tmp_path / "old/models", tmp_path / "new/models"]


def test_the_folder_is_known_before_the_backend(
    loader: BackendLoader, backend: SlowBackend, spec: ModelSpec, lifecycle: Lifecycle
) -> None:
    """The tokenizer need not wait for the weights; the backend comes warm."""
    loading = loader.load(spec)
    fetched, folder = loading.fetched.result(WAIT_S)
    assert (fetched.max_model_len, str(folder)) == (64, spec.source)
    assert loader.is_busy
    assert not loading.backend.done()
    backend.go_on.set()
    runner = loading.backend.result(WAIT_S)
    assert isinstance(runner, WarmedRunner)
    assert runner.is_warm
    assert {"fetch_ms", "backend_ms", "warm_up_ms"} < lifecycle.timings_ms().keys()


def test_what_is_discarded_is_closed_once_it_is_there(
    loader: BackendLoader, backend: SlowBackend, spec: ModelSpec
) -> None:
    """Its thread cannot be stopped; what could not be loaded need not be closed."""
    was_told = Event()
    for each in (replace(spec, id="alien"), spec):
        loading = loader.load(each)
        loading.discard()
    loading.backend.add_done_callback(lambda _: was_told.set())  # behind what discards it
    backend.go_on.set()
    assert was_told.wait(WAIT_S)
    assert backend.runners["tiny"].is_closed


def test_what_cannot_be_warmed_is_closed(
    loader: BackendLoader, backend: SlowBackend, spec: ModelSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its weights are there by then, and nobody else knows of it."""
    monkeypatch.setattr(WarmedRunner, "warm_up", Mock(side_effect=MemoryError))
    backend.go_on.set()
    with pytest.raises(PluginError, match=r"^model 'tiny': warm_up failed: MemoryError$"):
        loader.load(spec).backend.result(WAIT_S)
    assert backend.runners["tiny"].is_closed


def test_what_a_backend_raises_becomes_one_line(
    loader: BackendLoader,
    backend: SlowBackend,
    spec: ModelSpec,
    lifecycle: Lifecycle,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It names the model and its backend; the log has the traceback, and the phase its time."""
    monkeypatch.setattr(WarmedRunner, "__init__", Mock(side_effect=RuntimeError("no\n device")))
    backend.go_on.set()
    with (
        capture_logs() as logs,
        pytest.raises(
            PluginError, match=r"of backend slow: backend failed: RuntimeError: no device$"
        ),
    ):
        loader.load(replace(spec, backend="slow")).backend.result(WAIT_S)
    assert logs == [
        {
            "event": "plugin.raised",
            "log_level": "error",
            "exc_info": True,
            "model": "tiny",
            "phase": "backend",
        }
    ]
    assert "backend_ms" in lifecycle.timings_ms()


class SlowFetcher:
    """A plugin whose weights come when the test lets them."""

    def __init__(self) -> None:
        self.go_on = Event()
        self.problem: Exception | None = None

    @hookimpl
    def fetch_model(self, uri: str, cache_dir: Path, progress: FetchProgress) -> Path | None:
        """Fetch `slow://` and the path of a folder."""
        if not uri.startswith("slow://"):
            return None
        folder = Path(uri.removeprefix("slow://"))
        progress.advance(1, 4)
        progress.small_files_ready(folder)
        assert self.go_on.wait(WAIT_S)
        if self.problem is not None:
            raise self.problem
        return folder


@pytest.fixture
def fetching(tmp_path: Path, backend: SlowBackend, lifecycle: Lifecycle) -> FetchingLoader:
    """A loader with both plugins."""
    settings = Settings(plugins=(), data_dir=tmp_path / "data")
    plugins = make_plugin_manager(settings)
    fetcher = SlowFetcher()
    plugins.register(backend, "slow")
    plugins.register(fetcher, "fetcher")
    backend.go_on.set()
    return BackendLoader(plugins, settings, lifecycle), fetcher


def test_the_tokenizer_need_not_wait_for_the_weights(
    fetching: FetchingLoader, spec: ModelSpec, lifecycle: Lifecycle
) -> None:
    """Folder and limits are known as soon as the small files are there; the rest follows."""
    loader, fetcher = fetching
    loading = loader.load(replace(spec, source=f"slow://{spec.source}"))
    fetched, folder = loading.fetched.result(WAIT_S)
    assert (fetched.max_model_len, str(folder)) == (64, spec.source)
    assert lifecycle.reason == "fetching model tiny, 25 %"
    assert not loading.backend.done()
    fetcher.go_on.set()
    assert isinstance(loading.backend.result(WAIT_S), WarmedRunner)
    assert lifecycle.reason == "loading model tiny"


def test_weights_that_do_not_come_are_said_where_they_are_awaited(
    fetching: FetchingLoader, spec: ModelSpec
) -> None:
    """What was known before stays known."""
    loader, fetcher = fetching
    fetcher.go_on.set()
    for problem, kind, message in (
        (ConfigurationError("gone"), ConfigurationError, "^gone$"),
        (EOFError("cut"), PluginError, "^model 'tiny': fetch failed: EOFError: cut$"),
    ):
        fetcher.problem = problem
        loading = loader.load(replace(spec, source=f"slow://{spec.source}"))
        assert loading.fetched.result(WAIT_S)[0].max_model_len == 64
        with pytest.raises(kind, match=message):
            loading.backend.result(WAIT_S)


def test_limits_that_do_not_fit_are_said_before_the_weights_come(
    fetching: FetchingLoader, spec: ModelSpec
) -> None:
    """The fetch ends at once."""
    loader, _ = fetching
    loading = loader.load(replace(spec, source=f"slow://{spec.source}", max_model_len=65))
    for future in (loading.fetched, loading.backend):
        with pytest.raises(ConfigurationError, match="max_model_len"):
            future.result(WAIT_S)


def test_failures_are_raised_where_they_are_awaited(
    loader: BackendLoader, backend: SlowBackend, spec: ModelSpec
) -> None:
    """A folder that is not there, and a model that no plugin takes."""
    backend.go_on.set()
    absent = loader.load(ModelSpec(id="absent", source="/no/such/folder"))
    for future in (absent.fetched, absent.backend):
        with pytest.raises(ConfigurationError, match="does not exist"):
            future.result(WAIT_S)
    alien = loader.load(ModelSpec(id="alien", source=spec.source))
    with pytest.raises(PluginError, match=r"asked: slow, core"):
        alien.backend.result(WAIT_S)


def test_a_backend_says_what_its_start_waits_for(tmp_path: Path, lifecycle: Lifecycle) -> None:
    """`/readyz` repeats it while the server starts, and nothing goes back to starting after."""
    reports: list[Callable[[str], None]] = []

    class Builder:
        @hookimpl
        def load_model(self, model: ModelSpec, report: Callable[[str], None]) -> ModelRunner:
            reports.append(report)
            report("building engine, 40 %")
            return WarmedRunner(max_num_seqs=1, max_model_len=model.max_model_len, vocab_size=8)

    settings = Settings(plugins=(), data_dir=tmp_path / "data")
    plugins = make_plugin_manager(settings)
    plugins.register(Builder(), "builder")
    source = str(make_model_dir(tmp_path / "tiny", max_model_len=64))
    said: list[str] = []
    lifecycle.observe(lambda _, reason: said.append(reason))

    loading = BackendLoader(plugins, settings, lifecycle).load(ModelSpec(id="tiny", source=source))
    loading.backend.result(WAIT_S)

    assert said == ["loading model tiny", "model tiny: building engine, 40 %"]
    lifecycle.advance(State.READY, "ready")
    reports[0]("building engine, 50 %")
    assert lifecycle.reason == "ready"
