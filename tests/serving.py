"""A real server on a free loopback port, over a scripted runner, for the integration tests."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import aiohttp
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors

from provider_core import hookimpl
from provider_core.access.plugin import ApiKeyPlugin
from provider_core.billing.journal import Disk
from provider_core.encoders import Encoder
from provider_core.interfaces import Engine, ModelRunner
from provider_core.lifecycle import Lifecycle
from provider_core.plugins import PluginManager, make_plugin_manager
from provider_core.server.app import Server
from provider_core.server.defaults import TextDefaults
from provider_core.server.open_keys import open_keys
from provider_core.settings import Settings, load_settings
from provider_core.testing import ScriptedRunner
from provider_core.types import ModelSpec
from tests import usage_lines

KEY = "sk-test-key-for-the-suite"
CHATML = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
HERMES = (
    "{% if tools %}<|im_start|>system\n{% for tool in tools %}{{ tool | tojson }}\n{% endfor %}"
    "Call them as <tool_call>...</tool_call>.<|im_end|>\n{% endif %}"
    "{% for message in messages %}<|im_start|>{{ message.role }}\n"
    "{% if message.reasoning_content %}<think>\n{{ message.reasoning_content }}\n</think>\n"
    "{% endif %}{{ message.content }}{% for call in message.tool_calls or [] %}<tool_call>\n"
    "{{ call.function | tojson }}\n</tool_call>{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""A chat template of a model that reasons and calls tools, in the syntax of Hermes and Qwen."""
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
VOCAB_SIZE = 256 + len(SPECIAL)
EOS = VOCAB_SIZE - 1


def make_model_dir(
    folder: Path, *, max_model_len: int = 2048, chat: bool = True, chat_template: str = CHATML
) -> Path:
    """Write a model folder without weights: a tokenizer of single bytes and a chat template."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({char: i for i, char in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A", pair="$A $B:1", special_tokens=[]
    )
    tokenizer.add_special_tokens([AddedToken(text, special=True) for text in SPECIAL])
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    config: dict[str, Any] = {"eos_token": "<|im_end|>"}
    if chat:
        config["chat_template"] = chat_template
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    (folder / "config.json").write_text(
        json.dumps({"max_position_embeddings": max_model_len, "model_type": "scripted"})
    )
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": EOS}))
    return folder


def ids_of(text: str) -> list[int]:
    """The tokenizer's ids of plain text: one per byte."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    folder_ids = {char: i for i, char in enumerate(alphabet)}
    spelled = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return [folder_ids[char] for char in spelled.pre_tokenize_str(text)[0][0]] if text else []


class ScriptedBackend:
    """A plugin that loads a runner the test made."""

    def __init__(self, make_runner: Callable[[ModelSpec], ModelRunner | Engine | Encoder]) -> None:
        self._make_runner = make_runner

    @hookimpl
    def load_model(self, model: ModelSpec) -> ModelRunner | Engine | Encoder:
        """Load any model."""
        return self._make_runner(model)


def scripted_runner(**options: Any) -> Callable[[ModelSpec], ScriptedRunner]:
    """A factory of runners that fit a spec."""

    def make(model: ModelSpec) -> ScriptedRunner:
        return ScriptedRunner(
            max_num_seqs=model.max_num_seqs,
            max_model_len=model.max_model_len,
            vocab_size=VOCAB_SIZE,
            **options,
        )

    return make


def saying(text: str, **options: Any) -> Callable[[ModelSpec], ScriptedRunner]:
    """A factory of runners that answer every prompt with one text and its end."""
    return scripted_runner(reply=[*ids_of(text), EOS], **options)


@dataclass(slots=True)
class MemorySink:
    """Keeps usage lines."""

    lines: list[bytes] = field(default_factory=list)

    def emit(self, line: bytes) -> None:
        """Take one."""
        usage_lines.note(line)
        self.lines.append(line)

    def write_through(self, line: bytes) -> bool:
        """Take one that a journal has."""
        usage_lines.note(line)
        self.lines.append(line)
        return True

    @property
    def events(self) -> list[dict[str, Any]]:
        """The lines, parsed."""
        return [json.loads(line) for line in self.lines]


@dataclass(slots=True)
class Serving:
    """A running server, as a test sees it."""

    server: Server
    plugins: PluginManager
    port: int
    usage: MemorySink
    session: aiohttp.ClientSession

    @property
    def url(self) -> str:
        """Base of every path."""
        return f"http://127.0.0.1:{self.port}"

    async def post(self, path: str, body: Any, **options: Any) -> aiohttp.ClientResponse:
        """POST JSON with the key."""
        response = await self.session.post(self.url + path, json=body, **options)
        await response.read()
        return response

    async def chat(self, text: str = "hi", **fields: Any) -> aiohttp.ClientResponse:
        """A chat request to the first model."""
        messages = [{"role": "user", "content": text}]
        return await self.post(
            "/v1/chat/completions", {"model": "test-model", "messages": messages, **fields}
        )

    async def wait_until(self, condition: Callable[[], bool]) -> None:
        """Let the loop turn until something holds; the suite's time limit ends a wait in vain."""
        while not condition():  # noqa: ASYNC110 - whatever a test can look at
            await asyncio.sleep(0.001)

    async def settled(self) -> None:
        """Until no generation is open and every slot is free."""
        await self.wait_until(
            lambda: (
                not self.server.dispatcher.runs
                and all(m.engine.load().num_running == 0 for m in self.server.models)
            )
        )


@asynccontextmanager
async def serving(
    make_runner: Callable[[ModelSpec], ModelRunner | Engine | Encoder] | None = None,
    *,
    plugins: tuple[object, ...] = (),
    max_model_len: int = 2048,
    max_num_seqs: int = 8,
    aliases: tuple[str, ...] = ("openai/gpt-test",),
    chat: bool = True,
    chat_template: str = CHATML,
    load: bool = True,
    pricing: dict[str, Any] | None = None,
    deterministic: bool = False,
    model_limits: dict[str, int] | None = None,
    disk: Disk | None = None,
    **overrides: Any,
) -> AsyncIterator[Serving]:
    """Serve `test-model` until the context ends.

    Args:
        make_runner: What runs; by default one that answers "Hello!".
        plugins: Further plugins.
        max_model_len: Of the model.
        max_num_seqs: Its slots.
        aliases: Its other names.
        chat: Whether the model has a chat template.
        chat_template: Which one.
        load: Load the models and be ready.
        pricing: Further prices of the model.
        deterministic: What the model is declared to be.
        model_limits: How fast each key may use it.
        disk: The operating system under the journal.
        overrides: Settings.
    """
    with TemporaryDirectory() as data_dir:
        source = make_model_dir(
            Path(data_dir) / "test-model",
            max_model_len=max_model_len,
            chat=chat,
            chat_template=chat_template,
        )
        model = {
            "source": str(source),
            "max_num_seqs": max_num_seqs,
            "aliases": aliases,
            "deterministic": deterministic,
            "limits": model_limits or {},
        }
        settings = _settings(data_dir, model, pricing or {}, overrides)
        manager = make_plugin_manager(settings)
        manager.register(TextDefaults(settings), "core-text")
        store, _ = open_keys(settings, manager)
        manager.register(ApiKeyPlugin(store), "core-keys")
        manager.register(ScriptedBackend(make_runner or saying("Hello!")), "scripted")
        for plugin in plugins:
            manager.register(plugin)
        sink = MemorySink()
        server = Server(settings, manager, sink, Lifecycle(), disk=disk, keys=store)
        port = await server.open()
        try:
            if load:
                await server.load()
            async with aiohttp.ClientSession(
                headers={"Authorization": f"Bearer {KEY}"}, timeout=aiohttp.ClientTimeout(50)
            ) as session:
                yield Serving(server, manager, port, sink, session)
        finally:
            await server.close()
        assert usage_lines.discrepancies(sink.lines) == []


def _settings(
    data_dir: str, model: dict[str, Any], pricing: dict[str, Any], overrides: dict[str, Any]
) -> Settings:
    pricing = {"prompt": "0.000001", "completion": "0.000002", **pricing}
    values: dict[str, Any] = {
        "port": 0,
        "api_key": KEY,
        "data_dir": Path(data_dir) / "data",
        "plugins": (),
        "journal": {"enabled": False},  # lines are there as soon as an answer is
        "models": ({"id": "test-model", "pricing": pricing, **model},),
    }
    return load_settings(**{**values, **overrides})
