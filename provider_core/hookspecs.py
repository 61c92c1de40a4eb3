"""The hooks: every place where a plugin is asked. Signature and contract, no code.

Hooks are called at start-up and at the edges of a request, never per token. A hook that says
"first" stops at the first implementation that does not return `None`; returning `None` declines.
Implementations name only the arguments they use, and may be `async` only where the hook says so.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pluggy
import typer

from provider_core.diagnosis import Finding
from provider_core.encoders import Encoder
from provider_core.interfaces import ChatTemplate, Engine, ModelRunner, Tokenizer
from provider_core.settings import Settings
from provider_core.sources.remote import FetchProgress
from provider_core.stores import CreditLedger, LimitStore, StoreKind
from provider_core.tool_calling import ToolParser
from provider_core.types import Constraint, Grammar, ModelSpec, Principal, Tool, UsageRecord

if TYPE_CHECKING:  # not a cycle, but 0.1 s of each start: models begin to load before it is needed
    from aiohttp import web

hookspec = pluggy.HookspecMarker("provider_core")


@hookspec
def register_models(settings: Settings) -> list[ModelSpec] | None:
    """Offer models that are served when the configuration names none.

    Called once at start-up, before anything is loaded; all answers are joined. Raising stops
    start-up.
    """


@hookspec(firstresult=True)
def fetch_model(uri: str, cache_dir: Path, progress: FetchProgress) -> Path | None:
    """Bring a model source to a local folder. First.

    Called at start-up in a worker thread, once per model, and by `provider pull`. Describe a
    `provider_core.sources.remote.RemoteFolder` and give it to `fetch_folder`. `None` means that the
    scheme is not yours. Raise `ConfigurationError` for a source that cannot be had.
    """


@hookspec(firstresult=True)
def load_secret(uri: str) -> bytes | None:
    """Read a secret that the configuration names and does not hold. First.

    Called at start-up, maybe on the event loop's thread; for keys, every few seconds from then on
    in a worker thread. The core reads `env://NAME` and `file:///path`. Return the bytes as they
    are: the core takes white space off around text, and none off a pepper. `None` means that the
    scheme is not yours. Raise `SecretNotFound` for one that is not there, which ends a key that it
    was, and `ConfigurationError` for one that cannot be read now, which does not; never put a part
    of it into the message.
    """


@hookspec(firstresult=True)
def make_store(kind: StoreKind, settings: Settings) -> LimitStore | CreditLedger | None:
    """Make a store that replicas share. First.

    Called once for each kind at start-up, and by `provider credits`; maybe on the event loop's
    thread, so connect later. A `LimitStore` is asked for as `limits`, a `CreditLedger` as
    `credits`. `None` means that you keep none; if nobody does, each server counts rates by itself
    and keeps credits in its data folder. Raising stops start-up.
    """


@hookspec(firstresult=True)
def load_model(
    model: ModelSpec, model_dir: Path, report: Callable[[str], None]
) -> ModelRunner | Engine | Encoder | None:
    """Load a model. First.

    Called at start-up in a worker thread, once per model; import your runtime here and not at the
    top of your module. `None` means that this folder, or `model.backend`, is not yours. Raising
    stops the loading of this model with your message. What takes minutes, such as building an
    engine where `model.may_build` allows it, is told to `report`: `/readyz` says it.
    """


@hookspec
def before_snapshot() -> None:
    """Let go of what copies of this process must not share. All.

    Called on the main thread after all models are loaded and before any socket, file of bills or
    key store is open, where `server.checkpoint_url` says that the platform takes a snapshot. Close
    connections; drop what is large and quickly made again. Raising stops the start.
    """


@hookspec
def after_restore() -> None:
    """Take up again what was let go; in the first process and in each copy of it. All.

    Called on the main thread before anything else goes on: another machine, another time and the
    same memory. Draw new seeds, read credentials anew. Raising stops the start.
    """


@hookspec(firstresult=True)
def load_tokenizer(model: ModelSpec, model_dir: Path) -> Tokenizer | None:
    """Load a tokenizer. First. The core's own, tried last, reads `tokenizer.json`.

    Called at start-up in a worker thread, once per model.
    """


@hookspec(firstresult=True)
def load_chat_template(model: ModelSpec, model_dir: Path) -> ChatTemplate | None:
    """Load a chat template. First. The core's own, tried last, reads the model's folder.

    Called at start-up in a worker thread, once per model. A model for which nobody answers serves
    completions and refuses chat.
    """


@hookspec(firstresult=True)
def make_tool_parser(model: ModelSpec, tools: Sequence[Tool]) -> ToolParser | None:
    """Say how a model's calls of tools are read and written. First.

    Called on the event loop once per request that may call a tool. If nobody answers, the model's
    `tool_parser` decides, or what its chat template shows.
    """


@hookspec(firstresult=True)
def compile_grammar(
    model: ModelSpec, tokenizer: Tokenizer, constraint: Constraint
) -> Grammar | None:
    """Compile what a text has to look like. First. The core's own, tried last, is llguidance.

    Called in a worker thread, once for each constraint of a model that is not remembered; several
    at a time. `None` means that you do not enforce such a constraint; if nobody does, the request
    is a 400. Raise `InvalidRequest` with the code `invalid_schema` or `schema_too_complex` to
    refuse one, and finish within `limits.grammar_timeout_s`.
    """


@hookspec(firstresult=True)
def authenticate(
    headers: Mapping[str, str], query: Mapping[str, str]
) -> Principal | Awaitable[Principal | None] | None:
    """Say who is calling. First; may be awaitable.

    Called on the event loop for every request that needs a key, before its body is read. `None`
    means that these credentials are not yours to judge; if nobody answers the request is a 401.
    Raise `AuthenticationFailed` to refuse at once.
    """


@hookspec
def admit_request(
    principal: Principal, model: ModelSpec, num_prompt_tokens: int, max_tokens: int
) -> Awaitable[None] | None:
    """Refuse a request by raising `RateLimited`, `PermissionDenied` or another `ProviderError`.

    Called on the event loop once per request, after the prompt is counted and before anything is
    reserved; all implementations are asked; may be awaitable. The answer is ignored.
    """


@hookspec
def request_finished(record: UsageRecord) -> None:
    """Hear that a request ended. A notification: each implementation runs isolated.

    Called on the event loop once per generation, after the usage line is written, however the
    request ended. What you raise is logged and changes nothing. Do not block.
    """


@hookspec
def setup_app(app: web.Application) -> None:
    """Add routes, or append to `cleanup_ctx`. All.

    Called once at start-up before the socket opens. Raising stops start-up.
    """


@hookspec
def register_commands(app: typer.Typer) -> None:
    """Add commands to `provider`. All.

    Called when the command line starts. Import what a command needs inside it.
    """


@hookspec
def diagnose() -> list[Finding] | None:
    """Say whether what the plugin needs is there. All, each isolated.

    Called by `provider doctor`. Import your runtime here; load no model. Give a finding `missing`
    for what is not installed, with the command that installs it, and `failed` for what is installed
    and does not work. What you raise is a failure, too.
    """
