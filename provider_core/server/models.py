"""The models this process serves: loading them by hooks, letting them go."""

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from traceback import clear_frames
from uuid import uuid4

import structlog

from provider_core import hookspecs
from provider_core.billing.money import price_list
from provider_core.catalog import apply_runner_info
from provider_core.dialects.openai.logprobs import DecodeToken, make_decode_token
from provider_core.dialects.openrouter.routing import check_variant, split_variant
from provider_core.encoders import Encoder, EncoderTask
from provider_core.engine.encoder_engine import EncoderEngine
from provider_core.engine.engine import LLMEngine
from provider_core.errors import (
    InvalidRequest,
    ModelNotFound,
    PluginError,
    Unavailable,
)
from provider_core.interfaces import (
    ROUNDING_MARGIN,
    ChatTemplate,
    Engine,
    ModelRunner,
    RunnerInfo,
    Tokenizer,
)
from provider_core.lifecycle import Lifecycle
from provider_core.plugins import PluginManager
from provider_core.server.admission import PrefillRate
from provider_core.server.loading import BackendLoader, Loading
from provider_core.settings import Settings
from provider_core.text.chat_syntax import ChatSyntax, read_chat_syntax
from provider_core.text.encoder_tokenizer import EncoderTokenizer, load_encoder_tokenizer
from provider_core.types import ModelSpec
from provider_core.vision import ImageEncoder

log = structlog.get_logger()

_DRAIN_POLL_S = 0.05
_PREPARING_S = 10.0  # more than a request takes before its engine has it, images and all


@dataclass(slots=True, kw_only=True)
class _Listed:
    """What all served models have.

    Attributes:
        spec: As clients see it now; exchanged whole.
        num_open: Requests that hold it; it is not closed before they have what they need of it.
        released_s: When the last of them ended, on the `time.monotonic` clock.
        prefill_rate: What its engine has shown lately.
        load_id: Another after every load, whatever the name: other weights say other things.
    """

    spec: ModelSpec
    num_open: int = 0
    released_s: float = field(default_factory=time.monotonic)
    prefill_rate: PrefillRate = field(default_factory=PrefillRate)
    load_id: bytes = field(default_factory=lambda: uuid4().bytes)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep the model loaded while the context is open, listed or not."""
        self.num_open += 1
        try:
            yield
        finally:
            self.num_open -= 1
            self.released_s = time.monotonic()


@dataclass(slots=True, kw_only=True)
class ServedModel(_Listed):
    """A model that writes, and what serves it.

    Attributes:
        decode_token: A token's string and bytes, for log probabilities.
        chat_template: `None` for a model without one; it serves completions only.
        syntax: How it writes reasoning and calls.
        image_encoder: What looks at images; `None` for a model that reads text only.
        num_looking: Sequences that wait for it before they go to the engine.
    """

    engine: Engine
    tokenizer: Tokenizer
    chat_template: ChatTemplate | None
    decode_token: DecodeToken
    syntax: ChatSyntax = field(default_factory=ChatSyntax)
    image_encoder: ImageEncoder | None = None
    num_looking: int = 0


@dataclass(slots=True, kw_only=True)
class ServedEncoder(_Listed):
    """A model that makes vectors or scores, and what serves it."""

    engine: EncoderEngine
    tokenizer: EncoderTokenizer


Served = ServedModel | ServedEncoder

_ROUTES: Mapping[EncoderTask, str] = {"embed": "embeddings", "score": "rerank"}


class Models:
    """Every model of the server.

    Args:
        plugins: Asked for tokenizers and chat templates.
        settings: Of the engines.
        lifecycle: Times the phases of loading.
        on_dead: Called on the loop when an engine cannot go on.
        loader: Loads the backends, and has maybe begun to.
    """

    def __init__(
        self,
        plugins: PluginManager,
        settings: Settings,
        lifecycle: Lifecycle,
        on_dead: Callable[[Exception], None],
        loader: BackendLoader | None = None,
    ) -> None:
        self._plugins = plugins
        self._loader = loader or BackendLoader(plugins, settings, lifecycle)
        self._settings = settings
        self._lifecycle = lifecycle
        self._on_dead = on_dead
        self._models: dict[str, Served] = {}
        self._by_name: dict[str, Served] = {}
        self._leaving: dict[asyncio.Task[None], Served] = {}  # removed, not closed yet

    def __iter__(self) -> Iterator[Served]:
        return iter(list(self._models.values()))

    @property
    def in_memory(self) -> list[Served]:
        """The listed ones, and those that wait for their last request."""
        return [*self._models.values(), *self._leaving.values()]

    @property
    def specs(self) -> list[ModelSpec]:
        """What is listed, in order of loading."""
        return [model.spec for model in self]

    def find(self, name: str) -> Served:
        """Look a model up by id or alias, with one of OpenRouter's variants behind it or without.

        Raises:
            ModelNotFound: Nobody of that name.
            NoEndpoints: The free variant of a model that has a price.
        """
        model = self._by_name.get(name)
        if model is None:
            base, variant = split_variant(name)
            model = self._by_name.get(base)
            if model is not None:
                check_variant(model.spec, name, variant)
        if model is None:
            raise ModelNotFound(f"the model {name[:64]!r} does not exist", param="model")
        return model

    def find_ready(self, name: str) -> ServedModel:
        """As `find`, for a request that wants text.

        Raises:
            ModelNotFound: Nobody of that name.
            InvalidRequest: The model writes no text.
            Unavailable: The model is listed and takes no requests now.
        """
        model = self._find_available(name)
        if isinstance(model, ServedEncoder):
            raise _wrong_model(model, "does not generate text")
        return model

    def find_encoder(self, name: str, task: EncoderTask) -> ServedEncoder:
        """As `find`, for a request that wants vectors or scores.

        Raises:
            ModelNotFound: Nobody of that name.
            InvalidRequest: The model does something else.
            Unavailable: The model is listed and takes no requests now.
        """
        model = self._find_available(name)
        if isinstance(model, ServedModel) or model.engine.info.task != task:
            raise _wrong_model(model, "embeds no text" if task == "embed" else "does not rerank")
        return model

    def _find_available(self, name: str) -> Served:
        model = self.find(name)
        if not model.spec.is_ready:
            raise Unavailable(
                f"the model {model.spec.id!r} takes no requests now",
                code="model_not_ready",
                retry_after_s=30,
            )
        return model

    async def fetch(self, spec: ModelSpec) -> tuple[ModelSpec, Path]:
        """Bring a model's folder here and check what can be checked without loading it.

        Returns:
            The spec with every limit filled in, and the folder.

        Raises:
            ConfigurationError: The source cannot be had, its limits do not fit, or its prices
                cannot be billed.
        """
        spec, model_dir = await asyncio.to_thread(self._loader.fetch, spec)
        price_list(spec.prices)
        return spec, model_dir

    async def load(self, spec: ModelSpec) -> None:
        """Fetch, load and warm a model, then list it. What cannot be served is closed.

        Raises:
            ConfigurationError: As `fetch`.
            PluginError: No plugin loads it.
        """
        loading = self._loader.load(spec)
        try:
            model = await self._serve(loading)
        except BaseException as error:
            await asyncio.to_thread(loading.discard)
            clear_frames(error.__traceback__)  # in a cycle, it would keep the backend
            raise
        self._list(model)

    async def _serve(self, loading: Loading) -> Served:
        spec, model_dir = await asyncio.wrap_future(loading.fetched)
        price_list(spec.prices)
        text = asyncio.gather(
            asyncio.to_thread(self._load_tokenizer, spec, model_dir),
            asyncio.to_thread(self._load_chat_template, spec, model_dir),
        )
        waited = asyncio.wrap_future(loading.backend)
        await asyncio.gather(text, waited, return_exceptions=True)
        backend = waited.result()
        if isinstance(backend, Encoder):  # reads texts in another way, and no templates
            return await self._serve_encoder(spec, backend, model_dir)
        tokenizer, template = text.result()
        if tokenizer is None:
            raise PluginError(f"no plugin loads a tokenizer for the model {spec.id!r}")
        syntax = read_chat_syntax(spec, template, tokenizer)
        engine = self._make_engine(spec, backend)  # last: it owns the backend, and has a thread
        return ServedModel(
            spec=apply_runner_info(spec, engine.info),
            engine=engine,
            tokenizer=tokenizer,
            chat_template=template,
            decode_token=make_decode_token(tokenizer.token_bytes),
            syntax=syntax,
            image_encoder=backend if isinstance(backend, ImageEncoder) else None,
        )

    def _list(self, model: Served) -> None:
        spec, info = model.spec, model.engine.info
        self._models[spec.id] = model
        self._index()
        log.info(
            "model.loaded",
            model=spec.id,
            backend=info.backend,
            device=info.device,
            max_model_len=spec.max_model_len,
            max_num_seqs=spec.max_num_seqs,
            chat=isinstance(model, ServedModel) and model.chat_template is not None,
        )

    async def _serve_encoder(
        self, spec: ModelSpec, encoder: Encoder, model_dir: Path
    ) -> ServedEncoder:
        tokenizer = await asyncio.to_thread(load_encoder_tokenizer, model_dir)
        engine = EncoderEngine(
            encoder,
            max_batch_tokens=self._settings.engine.encoder_batch_tokens,
            on_dead=self._on_dead,
        )
        return ServedEncoder(
            spec=apply_runner_info(spec, engine.info), engine=engine, tokenizer=tokenizer
        )

    def _load_tokenizer(self, spec: ModelSpec, model_dir: Path) -> Tokenizer | None:
        with self._lifecycle.phase("tokenizer"):
            return self._plugins.first(hookspecs.load_tokenizer, model=spec, model_dir=model_dir)

    def _load_chat_template(self, spec: ModelSpec, model_dir: Path) -> ChatTemplate | None:
        with self._lifecycle.phase("chat_template"):
            return self._plugins.first(
                hookspecs.load_chat_template, model=spec, model_dir=model_dir
            )

    def _make_engine(self, spec: ModelSpec, backend: ModelRunner | Engine) -> Engine:
        if isinstance(backend, ModelRunner):
            return LLMEngine(
                backend,
                loop=asyncio.get_running_loop(),
                prefill_chunk_tokens=self._settings.engine.prefill_chunk_tokens,
                target_itl_s=self._settings.engine.target_itl_s,
                max_kv_tokens=self._settings.engine.max_kv_tokens,
                speculates=self._speculates(spec, backend.info),
                on_dead=self._on_dead,
            )
        return backend

    def _speculates(self, spec: ModelSpec, info: RunnerInfo) -> bool:
        """Whether drafts are tried: by default only where they do not change the text."""
        setting = self._settings.engine.speculation
        if setting == "off" or spec.deterministic:
            return False
        keeps_text = info.verify_margin is not None and info.verify_margin <= ROUNDING_MARGIN
        return setting == "prompt_lookup" or keeps_text

    def update(self, spec: ModelSpec) -> None:
        """Exchange facts (prices, aliases, readiness) without touching what is loaded.

        Raises:
            ConfigurationError: The prices cannot be billed.
        """
        price_list(spec.prices)
        model = self.find(spec.id)
        known = model.spec
        spec = replace(
            spec,
            name=spec.name or known.name,
            family=spec.family or known.family,
            created=spec.created or known.created,
            max_model_len=known.max_model_len,
            eos_token_ids=spec.eos_token_ids or known.eos_token_ids,
            quantization=spec.quantization or known.quantization,
            features=known.features,
        )
        model.spec = apply_runner_info(spec, model.engine.info)
        self._index()

    async def remove(self, model_id: str) -> None:
        """Stop taking requests, let the running ones end, free the memory.

        Answers that are complete, and wait for their client to read them, need no engine.
        What is under way goes on if the caller is cancelled. Unknown ids are ignored.
        """
        model = self._models.pop(model_id, None)
        if model is None:
            return
        self._index()
        task = asyncio.create_task(self._close_when_idle(model))
        self._leaving[task] = model
        task.add_done_callback(self._leaving.pop)
        await asyncio.shield(task)

    async def close(self) -> None:
        """Close every engine, without waiting for requests."""
        models = self.in_memory
        for task in self._leaving:
            task.cancel()
        self._models.clear()
        self._index()
        await asyncio.gather(*(model.engine.close() for model in models))

    async def _close_when_idle(self, model: Served) -> None:
        """Close it when its requests have ended, or only wait for clients to read."""
        worked_s = time.monotonic()
        while model.num_open and time.monotonic() - worked_s < _PREPARING_S:
            await asyncio.sleep(_DRAIN_POLL_S)
            if _is_working(model):
                worked_s = time.monotonic()
        await model.engine.close()
        log.info("model.removed", model=model.spec.id)

    def _index(self) -> None:
        # The configuration has made sure that every name means one model.
        self._by_name = {
            name: model for model in self for name in (model.spec.id, *model.spec.aliases)
        }


def _is_working(model: Served) -> bool:
    load = model.engine.load()
    num_looking = model.num_looking if isinstance(model, ServedModel) else 0
    return load.num_running + load.num_waiting + num_looking > 0


def _wrong_model(model: Served, lack: str) -> InvalidRequest:
    """The error for a request that a model of another kind could serve."""
    what_for = ""
    if isinstance(model, ServedEncoder):
        what_for = f"; it is for {_ROUTES[model.engine.info.task]}"
    return InvalidRequest(
        f"the model {model.spec.id!r} {lack}{what_for}", param="model", code="model_not_supported"
    )
