"""The plugin manager: what is loaded, in which order it is asked, and what stops start-up.

There is no module-level manager: `make_plugin_manager` returns one, and whoever needs it is given
it. Hooks are called through their specifications, so that a type checker sees both ends::

    runner = plugins.first(hookspecs.load_model, model=spec, model_dir=folder)
    models = plugins.every(hookspecs.register_models, settings=settings)
    plugins.notify(hookspecs.request_finished, record=record)
"""

import inspect
import os
import random
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import Distribution, EntryPoint, entry_points
from pathlib import Path
from typing import ParamSpec, TypeVar
from urllib.parse import unquote, urlsplit

import pluggy
import structlog

import provider_core
from provider_core import hookimpl, hookspecs
from provider_core.errors import ConfigurationError, PluginError, SecretNotFound
from provider_core.platforms import GROUP as PLATFORMS
from provider_core.settings import Settings
from provider_core.sources.remote import FetchProgress

GROUP = "provider_core"
"""Name of the entry-point group, the pluggy project and both markers."""

P = ParamSpec("P")
R = TypeVar("R")

_SEED_BYTES = 48  # as many as OpenSSL's own seeds have

_log = structlog.get_logger("provider_core.plugins")


@dataclass(frozen=True, slots=True, kw_only=True)
class PluginInfo:
    """One loaded plugin, for people.

    Attributes:
        distribution: Name of the package it came with; empty for what was registered by hand.
        version: Of that package.
        path: File of the plugin's module; empty if it has none.
        hooks: Names of the hooks it implements, sorted.
    """

    name: str
    distribution: str
    version: str
    path: str
    hooks: tuple[str, ...]


class CoreHooks:
    """The core's own answers, asked last."""

    @hookimpl(trylast=True)
    def fetch_model(self, uri: str, cache_dir: Path, progress: FetchProgress) -> Path | None:
        """Return a folder itself, nothing copied; bring what is on the Hub or on a web server.

        Raises:
            ConfigurationError: There is no such folder, or it cannot be had.
        """
        scheme = urlsplit(uri).scheme if "://" in uri else "file"
        if scheme == "file":
            return _local_folder(uri)
        if scheme in {"http", "https"}:
            from provider_core.sources.https import fetch_web_folder  # noqa: PLC0415 - few need it

            return fetch_web_folder(uri, cache_dir, progress)
        if scheme == "hf":
            from provider_core.sources.hugging_face import fetch_repository  # noqa: PLC0415

            return fetch_repository(uri, cache_dir, progress)
        return None

    @hookimpl
    def after_restore(self) -> None:
        """Draw a new seed for what need not be secret: copies must not wait in step.

        Secrets come from the kernel, but for those of TLS: OpenSSL's generator is in the memory.
        """
        random.seed()
        if "ssl" in sys.modules:
            sys.modules["ssl"].RAND_add(os.urandom(_SEED_BYTES), _SEED_BYTES)

    @hookimpl(trylast=True)
    def load_secret(self, uri: str) -> bytes | None:
        """Read `env://NAME` or `file:///path`, to the byte.

        Raises:
            SecretNotFound: There is no such variable or file.
            ConfigurationError: The file cannot be read.
        """
        scheme, _, name = uri.partition("://")
        if scheme == "env":
            value = os.environb.get(name.encode())  # what the settings say, not one of them
            if value is None:
                raise SecretNotFound(f"{uri}: the variable is not set")
            return value
        if scheme != "file":
            return None
        try:
            return Path(unquote(name)).read_bytes()
        except FileNotFoundError as error:
            raise SecretNotFound(f"{uri}: {error.strerror}") from error
        except OSError as error:
            raise ConfigurationError(f"{uri}: {error.strerror}") from error


class PluginManager(pluggy.PluginManager):
    """pluggy's manager with this project's hooks and typed calls of them.

    The order of asking is the reverse of the order of registration, `trylast` ones after the rest.
    """

    def __init__(self) -> None:
        super().__init__(GROUP)
        self.add_hookspecs(hookspecs)
        self._distributions: dict[str, Distribution] = {}  # by plugin name

    def first(self, hook: Callable[P, R], *_: P.args, **arguments: P.kwargs) -> R:
        """Ask until one implementation answers; for hooks whose contract says "first".

        Returns:
            That answer, or `None` if all declined.
        """
        answer: R = getattr(self.hook, _name(hook))(**arguments)
        return answer

    def every(self, hook: Callable[P, R], *_: P.args, **arguments: P.kwargs) -> list[R]:
        """Ask all implementations; the first exception stops the asking and is raised.

        Returns:
            The answers that are not `None`, in the order of asking.
        """
        answers: list[R] = getattr(self.hook, _name(hook))(**arguments)
        return answers

    def notify(self, hook: Callable[P, None], *_: P.args, **arguments: P.kwargs) -> None:
        """Tell all implementations, each isolated: what one raises is logged and hurts no other."""
        for plugin, answer in self.ask_each(hook, *_, **arguments):
            if isinstance(answer, Exception):
                _log.error("plugin.failed", plugin=plugin, hook=_name(hook), exc_info=answer)

    def ask_each(
        self, hook: Callable[P, R], *_: P.args, **arguments: P.kwargs
    ) -> list[tuple[str, R | Exception]]:
        """Ask all implementations, each isolated.

        Returns:
            Names of plugins with their answers, or with what they raised, in the order of asking.
        """
        answers: list[tuple[str, R | Exception]] = []
        for implementation in reversed(getattr(self.hook, _name(hook)).get_hookimpls()):
            values = [arguments[each] for each in implementation.argnames]
            try:
                answers.append((implementation.plugin_name, implementation.function(*values)))
            except Exception as error:  # noqa: BLE001 - whatever a plugin raises
                answers.append((implementation.plugin_name, error))
        return answers

    def describe(self) -> list[PluginInfo]:
        """All registered plugins in the order they are asked."""
        return [
            _describe(name, plugin, self._distributions.get(name), self.get_hookcallers(plugin))
            for name, plugin in reversed(self.list_name_plugin())
            if plugin is not None
        ]

    def load_entry_point(self, entry_point: EntryPoint) -> None:
        """Import one installed plugin, register it and check every hook it implements.

        Raises:
            PluginError: It cannot be imported, or implements an unknown hook or argument.
        """
        try:
            plugin = entry_point.load()
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            raise PluginError(f"{_title(entry_point)} cannot be imported: {reason}") from error
        try:
            self.register(plugin, entry_point.name)
            self.check_pending()
        except (pluggy.PluginValidationError, ValueError) as error:
            reason = " ".join(str(error).split())
            raise PluginError(f"{_title(entry_point)} does not fit: {reason}") from error
        if entry_point.dist is not None:
            self._distributions[entry_point.name] = entry_point.dist


def make_plugin_manager(settings: Settings) -> PluginManager:
    """Load the core's own implementations and the plugins that the settings name.

    The handler of `settings.platform` is asked first, then plugins in the order of
    `settings.plugins`, or by name when it is unset.

    Raises:
        PluginError: One is missing, broken, or two distributions bring the same name.
    """
    manager = PluginManager()
    manager.register(CoreHooks(), "core")
    installed = _by_name(entry_points(group=GROUP))
    wanted = settings.plugins if settings.plugins is not None else sorted(installed)
    for name in reversed(wanted):  # the last registered is asked first
        if name not in installed:
            known = ", ".join(sorted(installed)) or "none"
            raise PluginError(f"plugin {name!r} is not installed; installed are: {known}")
        manager.load_entry_point(installed[name])
    for entry_point in entry_points(group=PLATFORMS, name=settings.platform):
        manager.load_entry_point(entry_point)
    return manager


def _local_folder(uri: str) -> Path:
    path = Path(unquote(urlsplit(uri).path)) if "://" in uri else Path(uri).expanduser()
    if not path.is_dir():
        problem = "is a file, not a folder" if path.exists() else "does not exist"
        raise ConfigurationError(f"model source {uri!r} {problem}")
    return path


def _by_name(found: Iterable[EntryPoint]) -> dict[str, EntryPoint]:
    installed: dict[str, EntryPoint] = {}
    for entry_point in found:
        other = installed.setdefault(entry_point.name, entry_point)
        if other is not entry_point:
            raise PluginError(
                f"plugin {entry_point.name!r} comes with both {_origin(other)} and "
                f"{_origin(entry_point)}; uninstall one"
            )
    return installed


def _title(entry_point: EntryPoint) -> str:
    return f"plugin {entry_point.name!r} of {_origin(entry_point)}"


def _origin(entry_point: EntryPoint) -> str:
    dist = entry_point.dist
    return f"{dist.name} {dist.version}" if dist is not None else entry_point.value


def _describe(
    name: str,
    plugin: object,
    dist: Distribution | None,
    callers: Sequence[pluggy.HookCaller] | None,
) -> PluginInfo:
    module = plugin if inspect.ismodule(plugin) else inspect.getmodule(type(plugin))
    is_core = dist is None and module is not None and module.__name__.startswith("provider_core.")
    return PluginInfo(
        name=name,
        distribution="provider-core" if is_core else dist.name if dist else "",
        version=provider_core.__version__ if is_core else dist.version if dist else "",
        path=getattr(module, "__file__", None) or "",
        hooks=tuple(sorted(caller.name for caller in callers or ())),
    )


def _name(hook: Callable[..., object]) -> str:
    return hook.__name__
