"""The core's own answers to the text hooks, tried last: what a model's folder says."""

from pathlib import Path
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import pluggy

from provider_core.interfaces import ChatTemplate, Tokenizer
from provider_core.settings import Settings
from provider_core.text.chat_template import load_chat_template
from provider_core.text.tokenizer import load_tokenizer
from provider_core.types import Constraint, Grammar, ModelSpec

if TYPE_CHECKING:
    from provider_core.text.grammar_compiler import GrammarFactory

_hookimpl = pluggy.HookimplMarker("provider_core")


class TextDefaults:
    """Reads `tokenizer.json` and the chat template from a model's folder; compiles grammars."""

    def __init__(self, settings: Settings) -> None:
        self._limits = settings.limits
        self._factories: WeakKeyDictionary[Tokenizer, GrammarFactory] = WeakKeyDictionary()

    @_hookimpl(trylast=True)
    def load_tokenizer(self, model_dir: Path) -> Tokenizer | None:
        """Read `tokenizer.json`, if there is one."""
        if not (model_dir / "tokenizer.json").is_file():
            return None
        return load_tokenizer(model_dir)

    @_hookimpl(trylast=True)
    def load_chat_template(self, model_dir: Path) -> ChatTemplate | None:
        """Read the folder's template, if there is one."""
        return load_chat_template(model_dir, timeout_s=self._limits.template_timeout_s)

    @_hookimpl(trylast=True)
    def compile_grammar(
        self, model: ModelSpec, tokenizer: Tokenizer, constraint: Constraint
    ) -> Grammar:
        """Let llguidance enforce it, for any tokenizer."""
        from provider_core.text.grammar_compiler import (  # noqa: PLC0415 - 50 ms of each start
            GrammarFactory,
        )

        factory = self._factories.get(tokenizer)
        if factory is None:
            factory = GrammarFactory(tokenizer, model.eos_token_ids)
            factory = self._factories.setdefault(tokenizer, factory)
        return factory.compile(constraint)
