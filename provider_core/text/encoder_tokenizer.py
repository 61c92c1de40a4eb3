"""Texts to rows of an encoder: with the control tokens and the prompts that its folder names.

`tokenizer.json` says what stands around one text and around a pair (`[CLS] query [SEP] document
[SEP]`), `config_sentence_transformers.json` which words go before a query or a document.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers

from provider_core.encoders import EncoderRow
from provider_core.errors import ConfigurationError
from provider_core.text.tokenizer import read_json_object
from provider_core.text.tokenizer_file import parse_tokenizer

_NAMES_OF_KINDS = {
    "query": ("query", "search_query"),
    "document": ("document", "passage", "search_document"),
}
"""How clients and folders call the two kinds of texts that nearly all models tell apart."""


def load_encoder_tokenizer(model_dir: Path) -> "EncoderTokenizer":
    """Read the tokenizer and the prompts of a model folder.

    Raises:
        ConfigurationError: There is no tokenizer, or one of the files is broken.
    """
    try:
        definition = (model_dir / "tokenizer.json").read_bytes()
        parser = parse_tokenizer(definition)
    except FileNotFoundError:
        raise ConfigurationError(f"no tokenizer.json in {model_dir}") from None
    except Exception as error:  # the library raises plain Exception
        raise ConfigurationError(f"cannot read tokenizer.json in {model_dir}") from error
    config = read_json_object(model_dir / "config_sentence_transformers.json")
    sentence = read_json_object(model_dir / "sentence_bert_config.json")
    prompts = config.get("prompts") or {}
    if not isinstance(prompts, dict) or not all(isinstance(p, str) for p in prompts.values()):
        raise ConfigurationError(
            f"{model_dir / 'config_sentence_transformers.json'}: prompts must map names to texts"
        )
    return EncoderTokenizer(
        parser,
        prompts=prompts,
        default_prompt=config.get("default_prompt_name"),
        lowercases=sentence.get("do_lower_case") is True,
    )


class EncoderTokenizer:
    """Encodes many texts at once, without the interpreter lock. Thread-safe.

    What looks like a control token in a text is encoded as plain text.

    Args:
        parser: Its settings for truncation and padding are undone.
        prompts: What goes before a text, by the name of its kind.
        default_prompt: The kind of texts of which nothing is said.
        lowercases: Texts lose their capitals first.
    """

    def __init__(
        self,
        parser: tokenizers.Tokenizer,
        *,
        prompts: Mapping[str, str] | None = None,
        default_prompt: str | None = None,
        lowercases: bool = False,
    ) -> None:
        parser.no_truncation()
        parser.no_padding()
        parser.encode_special_tokens = True
        self._parser = parser
        self.prompts = dict(prompts or {})
        self._default_prompt = self.prompts.get(default_prompt or "", "")
        self._lowercases = lowercases
        self.vocab_size: int = max(parser.get_vocab().values(), default=-1) + 1

    def find_kind(self, input_type: str) -> str | None:
        """The name of the prompt for what a client calls its texts; `None` if nobody knows it.

        Queries and documents are known in any case, and maybe have no prompt.
        """
        if input_type in self.prompts:
            return input_type
        for names in _NAMES_OF_KINDS.values():
            if input_type in names:
                return next((name for name in names if name in self.prompts), input_type)
        return None

    def encode(self, texts: Sequence[str], *, kind: str | None = None) -> list[EncoderRow]:
        """Encode texts, each for itself.

        Args:
            texts: Any valid Unicode, no lone surrogates.
            kind: Name of a prompt; one without a prompt has none, and `None` is the default.
        """
        prompt = self._default_prompt if kind is None else self.prompts.get(kind, "")
        return self._encode([prompt + self._cased(text) for text in texts])

    def encode_pairs(self, query: str, documents: Sequence[str]) -> list[EncoderRow]:
        """Encode a query with each of some documents."""
        query = self._cased(query)
        return self._encode([(query, self._cased(document)) for document in documents])

    def _cased(self, text: str) -> str:
        return text.lower() if self._lowercases else text

    def _encode(self, inputs: Sequence[Any]) -> list[EncoderRow]:  # texts or pairs of texts
        rows = []
        for encoding in self._parser.encode_batch_fast(inputs):
            types = np.array(encoding.type_ids, np.int8)
            ids = np.array(encoding.ids, np.int32)
            rows.append(EncoderRow(ids, types if types.any() else None))
        return rows
