"""The core's own answers to the text hooks, tried last: what a model's folder says."""

from pathlib import Path

import pluggy

from provider_core.interfaces import ChatTemplate, Tokenizer
from provider_core.settings import Settings
from provider_core.text.chat_template import load_chat_template
from provider_core.text.tokenizer import load_tokenizer

_hookimpl = pluggy.HookimplMarker("provider_core")


class TextDefaults:
    """Reads `tokenizer.json` and the chat template from a model's folder."""

    def __init__(self, settings: Settings) -> None:
        self._limits = settings.limits

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
