"""Loading, asking and notifying plugins; what is wrong with one is said loudly."""

import sys
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from provider_core import ModelSpec, PluginError, Usage, UsageRecord, __version__, hookimpl
from provider_core import hookspecs as hooks
from provider_core.plugins import PluginInfo, PluginManager, make_plugin_manager
from provider_core.settings import Settings
from provider_core.sources.progress import LoggedProgress

Install = Callable[..., Path]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Installs a distribution with one plugin module, as a package manager would lay it out."""

    def install(plugin: str, code: str, *, distribution: str = "acme-plugin") -> Path:
        site = tmp_path / distribution
        info = site / f"{distribution.replace('-', '_')}-1.5.dist-info"
        info.mkdir(parents=True)
        module = f"{distribution.replace('-', '_')}_{plugin}"
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.5\n"
        )
        (info / "entry_points.txt").write_text(f"[provider_core]\n{plugin} = {module}\n")
        (site / f"{module}.py").write_text(f"from provider_core import hookimpl\n{code}\n")
        monkeypatch.syspath_prepend(str(site))
        monkeypatch.delitem(sys.modules, module, raising=False)
        return site / f"{module}.py"

    return install


GOOD = """
@hookimpl
def register_models(settings):
    return []
"""


def failure(*plugins: str) -> str:
    """The message of the error that loading these plugins raises."""
    with pytest.raises(PluginError) as raised:
        make_plugin_manager(Settings(plugins=plugins))
    return raised.value.message


def names(manager: PluginManager) -> list[str]:
    """Plugins in the order they are asked."""
    return [info.name for info in manager.describe()]


def test_a_named_plugin_is_loaded_and_described(install: Install) -> None:
    """`describe` says where a plugin came from and what it does."""
    path = install("good", GOOD)

    manager = make_plugin_manager(Settings(plugins=("good",)))

    assert manager.describe()[0] == PluginInfo(
        name="good",
        distribution="acme-plugin",
        version="1.5",
        path=str(path),
        hooks=("register_models",),
    )


def test_the_core_describes_itself() -> None:
    """The core's own implementations are listed like a plugin's."""
    (core,) = make_plugin_manager(Settings(plugins=())).describe()

    assert (core.name, core.distribution, core.version) == ("core", "provider-core", __version__)
    assert core.hooks == ("after_restore", "fetch_model", "load_secret")


def test_all_installed_plugins_load_unless_some_are_named(install: Install) -> None:
    """Installing a plugin is enough; they are asked by name, so that the order is the same."""
    install("zebra", GOOD)
    install("aardvark", GOOD, distribution="other-plugin")

    loaded = names(make_plugin_manager(Settings()))

    assert loaded == [*sorted(loaded[:-1]), "core"]
    assert {"zebra", "aardvark"} <= set(loaded)


def test_named_plugins_are_asked_in_their_order(install: Install) -> None:
    """`PROVIDER_PLUGINS` says who is asked first, and leaves the rest out."""
    install("zebra", GOOD)
    install("aardvark", GOOD, distribution="other-plugin")
    install("unused", GOOD, distribution="third-plugin")

    manager = make_plugin_manager(Settings(plugins=("zebra", "aardvark")))

    assert names(manager) == ["zebra", "aardvark", "core"]


def test_a_missing_plugin_stops_the_start(install: Install) -> None:
    """The message names what is installed instead."""
    install("good", GOOD)

    message = failure("god")

    assert message.startswith("plugin 'god' is not installed; installed are: ")
    assert "good" in message


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("import no_such_module_anywhere", "ModuleNotFoundError: No module named"),
        ("raise RuntimeError('driver too old')", "RuntimeError: driver too old"),
        ("def (", "SyntaxError: "),
    ],
)
def test_a_plugin_that_cannot_be_imported_stops_the_start(
    install: Install, code: str, reason: str
) -> None:
    """The message names plugin, distribution and reason."""
    install("broken", code)

    assert failure("broken").startswith(
        f"plugin 'broken' of acme-plugin 1.5 cannot be imported: {reason}"
    )


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("@hookimpl\ndef load_modle(model): ...", "unknown hook 'load_modle'"),
        ("@hookimpl\ndef load_model(model, folder): ...", "'folder'"),
    ],
)
def test_a_misspelt_hook_or_argument_stops_the_start(
    install: Install, code: str, reason: str
) -> None:
    """A hook that would never be called is an error, not a silence."""
    install("misspelt", code)

    message = failure("misspelt")

    assert message.startswith("plugin 'misspelt' of acme-plugin 1.5 does not fit: ")
    assert reason in message
    assert "\n" not in message


def test_two_distributions_with_one_name_stop_the_start(install: Install) -> None:
    """Which of two would win is nobody's guess."""
    install("same", GOOD)
    install("same", GOOD, distribution="other-plugin")

    message = failure("same")

    assert message.startswith("plugin 'same' comes with both ")
    assert "acme-plugin 1.5" in message
    assert "other-plugin 1.5" in message


def test_a_plugin_named_twice_stops_the_start(install: Install) -> None:
    """Its hooks would be called twice."""
    install("good", GOOD)

    assert "does not fit" in failure("good", "good")


class Deaf:
    """Fails at every notification."""

    @hookimpl
    def request_finished(self, record: UsageRecord) -> None:
        """Fail."""
        raise RuntimeError(record.generation_id)


class Ear:
    """Remembers what it hears."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    @hookimpl
    def request_finished(self, record: UsageRecord) -> None:
        """Remember."""
        self.heard.append(record.generation_id)


class Mute:
    """Needs no argument."""

    def __init__(self) -> None:
        self.calls = 0

    @hookimpl
    def request_finished(self) -> None:
        """Count."""
        self.calls += 1


def record(generation_id: str) -> UsageRecord:
    """A record of nothing."""
    return UsageRecord(
        generation_id=generation_id,
        request_id="req-1",
        model="tiny",
        status="ok",
        usage=Usage(),
        cost=Decimal(0),
        event={},
    )


def test_notifications_reach_everybody_whoever_fails() -> None:
    """A failing listener is logged by name and keeps nothing from the others."""
    manager = PluginManager()
    ears = [Ear(), Ear()]
    manager.register(ears[0], "before")
    manager.register(Deaf(), "deaf")
    manager.register(ears[1], "after")

    with capture_logs() as logs:
        manager.notify(hooks.request_finished, record=record("gen-1"))

    assert [ear.heard for ear in ears] == [["gen-1"], ["gen-1"]]
    assert [(line["event"], line["plugin"], line["hook"]) for line in logs] == [
        ("plugin.failed", "deaf", "request_finished")
    ]


def test_notifications_pass_only_the_named_arguments() -> None:
    """An implementation names what it uses."""
    manager = PluginManager()
    mute = Mute()
    manager.register(mute)

    manager.notify(hooks.request_finished, record=record("gen-1"))

    assert mute.calls == 1


class Fetcher:
    """Answers one scheme."""

    def __init__(self, scheme: str, answer: Path) -> None:
        self._scheme, self._answer = scheme, answer

    @hookimpl
    def fetch_model(self, uri: str) -> Path | None:
        """Answer, or decline."""
        return self._answer if uri.startswith(self._scheme) else None


def test_first_stops_at_the_first_answer(tmp_path: Path) -> None:
    """Declining with `None` passes the question on; the last registered is asked first."""
    manager = PluginManager()
    for scheme, answer in (("a://", "1"), ("b://", "2"), ("a://", "3")):
        manager.register(Fetcher(scheme, Path(answer)))

    answers = [
        manager.first(hooks.fetch_model, uri=uri, cache_dir=tmp_path, progress=LoggedProgress())
        for uri in ("a://x", "b://x", "c://x")
    ]

    assert answers == [Path("3"), Path("2"), None]


class Offer:
    """Offers one model, or none."""

    def __init__(self, *specs: ModelSpec) -> None:
        self._specs = list(specs)

    @hookimpl
    def register_models(self) -> list[ModelSpec] | None:
        """Offer."""
        return self._specs or None


def test_every_collects_the_answers_that_are_not_none() -> None:
    """All are asked, the last registered first; who has nothing to say is left out."""
    manager = PluginManager()
    specs = [ModelSpec(id=name, source=name) for name in "ab"]
    manager.register(Offer(specs[0]))
    manager.register(Offer())
    manager.register(Offer(specs[1]))

    assert manager.every(hooks.register_models, settings=Settings()) == [[specs[1]], [specs[0]]]
