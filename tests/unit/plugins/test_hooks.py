"""Each hook as a plugin fills it, asked as the core asks it. One test a hook, named after it."""

import inspect
from collections.abc import Awaitable, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

import pytest
import typer
from aiohttp import web

from provider_core import (
    ChatTemplate,
    ConfigurationError,
    Constraint,
    Finding,
    Grammar,
    LimitStore,
    ModelRunner,
    ModelSpec,
    Principal,
    RateLimited,
    StoreKind,
    Tokenizer,
    ToolParser,
    Usage,
    UsageRecord,
    hookimpl,
    hookspecs,
)
from provider_core.catalog import specs_from_settings
from provider_core.plugins import CoreHooks, PluginManager
from provider_core.settings import Settings
from provider_core.sources.progress import LoggedProgress

SPEC = ModelSpec(id="tiny", source="/models/tiny", backend="acme")
CALLER = Principal(api_key_id="key-1")


class Thing:
    """Stands for a runner, a tokenizer or a template: the manager passes answers through."""


# Answers pass through as they are, so nothing but identity matters here.
RUNNER: Any = Thing()
TOKENIZER: Any = Thing()
TEMPLATE: Any = Thing()
GRAMMAR: Any = Thing()
PARSER: Any = Thing()
LIMITS: Any = Thing()
PROGRESS = LoggedProgress()


class Acme:
    """Implements every hook, each with only the arguments it uses."""

    def __init__(self) -> None:
        self.records: list[UsageRecord] = []

    @hookimpl
    def register_models(self) -> list[ModelSpec]:
        """Offer one model."""
        return [SPEC]

    @hookimpl
    def fetch_model(self, uri: str, cache_dir: Path) -> Path | None:
        """Fetch one scheme."""
        return cache_dir / uri.removeprefix("acme://") if uri.startswith("acme://") else None

    @hookimpl
    def make_store(self, kind: StoreKind) -> LimitStore | None:
        """Share limits."""
        limits: LimitStore = LIMITS
        return limits if kind == "limits" else None

    @hookimpl
    def load_model(self, model: ModelSpec) -> ModelRunner | None:
        """Load models that name no other backend."""
        runner: ModelRunner = RUNNER
        return runner if model.backend in {None, "acme"} else None

    @hookimpl
    def load_tokenizer(self, model: ModelSpec, model_dir: Path) -> Tokenizer:
        """Load."""
        tokenizer: Tokenizer = TOKENIZER
        return tokenizer

    @hookimpl
    def load_chat_template(self) -> ChatTemplate:
        """Load."""
        template: ChatTemplate = TEMPLATE
        return template

    @hookimpl
    def make_tool_parser(self, model: ModelSpec) -> ToolParser | None:
        """Know one model's syntax."""
        return PARSER if model.id == "tiny" else None

    @hookimpl
    def compile_grammar(self, constraint: Constraint) -> Grammar | None:
        """Enforce one kind."""
        grammar: Grammar = GRAMMAR
        return grammar if constraint.kind == "lark" else None

    @hookimpl
    def authenticate(
        self, headers: Mapping[str, str]
    ) -> Principal | Awaitable[Principal | None] | None:
        """Know one header at once and another after asking."""
        if "acme" in headers:
            return CALLER
        return self._ask() if "acme-slow" in headers else None

    @staticmethod
    async def _ask() -> Principal:
        return CALLER

    @hookimpl
    def admit_request(self, max_tokens: int) -> None:
        """Refuse long answers."""
        if max_tokens > 10:
            raise RateLimited("too many tokens", retry_after_s=2)

    @hookimpl
    def request_finished(self, record: UsageRecord) -> None:
        """Remember."""
        self.records.append(record)

    @hookimpl
    def setup_app(self, app: web.Application) -> None:
        """Add a route."""
        app.router.add_get("/acme", self._answer)

    @staticmethod
    async def _answer(request: web.Request) -> web.Response:
        return web.Response()

    @hookimpl
    def register_commands(self, app: typer.Typer) -> None:
        """Add a command."""
        app.command("acme")(lambda: None)

    @hookimpl
    def diagnose(self) -> list[Finding]:
        """Say that all is well."""
        return [Finding(name="acme", status="ok", detail="1.0")]


@pytest.fixture
def acme() -> Acme:
    """The plugin."""
    return Acme()


@pytest.fixture
def plugins(acme: Acme) -> PluginManager:
    """A manager with the core's own hooks and the plugin."""
    manager = PluginManager()
    manager.register(CoreHooks(), "core")
    manager.register(acme, "acme")
    return manager


def test_register_models(plugins: PluginManager) -> None:
    """A plugin's models are served when the configuration names none."""
    assert specs_from_settings(Settings(), plugins) == [SPEC]


def test_fetch_model(plugins: PluginManager, tmp_path: Path) -> None:
    """A plugin brings its scheme; folders and `file://` are the core's; others are nobody's."""
    folder = tmp_path / "a model"
    folder.mkdir()

    answers = [
        plugins.first(hookspecs.fetch_model, uri=uri, cache_dir=tmp_path, progress=PROGRESS)
        for uri in ("acme://tiny", str(folder), folder.as_uri(), "other://tiny")
    ]

    assert answers == [tmp_path / "tiny", folder, folder, None]


@pytest.mark.parametrize("name", ["absent", "file"])
def test_fetch_model_names_a_folder_that_cannot_be_had(
    plugins: PluginManager, tmp_path: Path, name: str
) -> None:
    """A path that is no folder is said to be so."""
    (tmp_path / "file").touch()

    with pytest.raises(ConfigurationError, match=name):
        plugins.first(
            hookspecs.fetch_model,
            uri=str(tmp_path / name),
            cache_dir=tmp_path,
            progress=PROGRESS,
        )


@pytest.mark.parametrize(("backend", "expected"), [("acme", RUNNER), ("other", None)])
def test_load_model(
    plugins: PluginManager, tmp_path: Path, backend: str, expected: ModelRunner | None
) -> None:
    """A plugin declines a model that names another backend."""
    model = ModelSpec(id="tiny", source="x", backend=backend)

    found = plugins.first(
        hookspecs.load_model, model=model, model_dir=tmp_path, report=lambda _: None
    )

    assert found is expected


def test_load_tokenizer(plugins: PluginManager, tmp_path: Path) -> None:
    """A plugin can bring a tokenizer of its own."""
    loaded: Tokenizer | None = plugins.first(
        hookspecs.load_tokenizer, model=SPEC, model_dir=tmp_path
    )

    assert loaded is TOKENIZER


def test_load_chat_template(plugins: PluginManager, tmp_path: Path) -> None:
    """A plugin can bring a template of its own."""
    loaded: ChatTemplate | None = plugins.first(
        hookspecs.load_chat_template, model=SPEC, model_dir=tmp_path
    )

    assert loaded is TEMPLATE


@pytest.mark.parametrize(("kind", "expected"), [("limits", LIMITS), ("credits", None)])
def test_make_store(plugins: PluginManager, kind: StoreKind, expected: LimitStore | None) -> None:
    """A plugin shares limits, and leaves credits to the core."""
    store = plugins.first(hookspecs.make_store, kind=kind, settings=Settings())

    assert store is expected


@pytest.mark.parametrize(("kind", "expected"), [("lark", GRAMMAR), ("regex", None)])
def test_compile_grammar(
    plugins: PluginManager, kind: Literal["lark", "regex"], expected: Grammar | None
) -> None:
    """A plugin enforces what it knows, and leaves other constraints to the core."""
    constraint = Constraint(kind=kind, source="x")

    grammar: Grammar | None = plugins.first(
        hookspecs.compile_grammar, model=SPEC, tokenizer=TOKENIZER, constraint=constraint
    )

    assert grammar is expected


@pytest.mark.parametrize(("model_id", "expected"), [("tiny", PARSER), ("other", None)])
def test_make_tool_parser(
    plugins: PluginManager, model_id: str, expected: ToolParser | None
) -> None:
    """A plugin knows how its models write calls, and leaves others to the core."""
    model = ModelSpec(id=model_id, source="x")

    assert plugins.first(hookspecs.make_tool_parser, model=model, tools=[]) is expected


@pytest.mark.parametrize(
    ("headers", "expected"), [({"acme": "1"}, CALLER), ({"acme-slow": "1"}, CALLER), ({}, None)]
)
async def test_authenticate(
    plugins: PluginManager, headers: dict[str, str], expected: Principal | None
) -> None:
    """A plugin knows its callers, at once or when awaited, and leaves others to others."""
    answer = plugins.first(hookspecs.authenticate, headers=headers, query={})
    caller = await answer if inspect.isawaitable(answer) else answer

    assert caller == expected


def test_admit_request(plugins: PluginManager) -> None:
    """A plugin refuses by raising; the answer of one that does not is ignored."""

    def admit(max_tokens: int) -> list[Awaitable[None] | None]:
        return plugins.every(
            hookspecs.admit_request,
            principal=CALLER,
            model=SPEC,
            num_prompt_tokens=1,
            max_tokens=max_tokens,
        )

    assert admit(10) == []
    with pytest.raises(RateLimited, match="too many tokens"):
        admit(11)


def test_request_finished(plugins: PluginManager, acme: Acme) -> None:
    """A plugin hears the record."""
    record = UsageRecord(
        generation_id="gen-1",
        request_id="req-1",
        model="tiny",
        status="ok",
        usage=Usage(),
        cost=Decimal(0),
        event={},
    )

    plugins.notify(hookspecs.request_finished, record=record)

    assert acme.records == [record]


def test_setup_app(plugins: PluginManager) -> None:
    """A plugin adds routes."""
    app = web.Application()

    plugins.every(hookspecs.setup_app, app=app)

    assert [resource.canonical for resource in app.router.resources()] == ["/acme"]


def test_register_commands(plugins: PluginManager) -> None:
    """A plugin adds commands."""
    app = typer.Typer()

    plugins.every(hookspecs.register_commands, app=app)

    assert [command.name for command in app.registered_commands] == ["acme"]


def test_diagnose(plugins: PluginManager) -> None:
    """Each plugin is asked for itself: one that fails takes no other's answer away."""

    class Broken:
        @hookimpl
        def diagnose(self) -> list[Finding]:
            raise OSError("no library")

    plugins.register(Broken(), "broken")

    answers = dict(plugins.ask_each(hookspecs.diagnose))

    assert str(answers["broken"]) == "no library"
    assert answers["acme"] == [Finding(name="acme", status="ok", detail="1.0")]
