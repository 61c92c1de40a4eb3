"""The tokenizer of a model folder: `tokenizer.json`, read by the tokenizers library.

Nothing is ever added to a text by `encode`. A raw completions prompt begins with
`prompt_prefix_ids`: the BOS id if tokenizer_config.json says `add_bos_token`, or if it says nothing
and the tokenizer's own post-processor puts an id first. Chat prompts begin as their template says.
"""

import json
import re
from collections.abc import Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import orjson
import tokenizers

from provider_core.errors import ConfigurationError
from provider_core.text.token_bound import TokenBound
from provider_core.text.tokenizer_file import parse_tokenizer
from provider_core.text.vocabulary import Vocabulary, VocabularyDecoder

_DOCUMENT_SEPARATOR = "<|endoftext|>"  # of GPT-2's vocabulary and of all that follow its custom
_ADDED_TOKENS = re.compile(rb'"added_tokens"\s*:\s*(\[)')  # in no string: its quotes are escaped
_LONG_TEXT = 4096  # characters from which the interpreter lock is given up while encoding


def load_tokenizer(model_dir: Path) -> "FolderTokenizer":
    """Read the tokenizer of a model folder.

    Raises:
        ConfigurationError: There is none, it is broken, or its decoder is not supported.
    """
    try:
        definition = (model_dir / "tokenizer.json").read_bytes()
        config = read_json_object(model_dir / "tokenizer_config.json")
        return FolderTokenizer(definition, config)
    except ConfigurationError:
        raise
    except FileNotFoundError:
        raise ConfigurationError(f"no tokenizer.json in {model_dir}") from None
    except Exception as error:  # the library raises plain Exception
        raise ConfigurationError(f"cannot read tokenizer.json in {model_dir}") from error


def read_json_object(path: Path) -> Mapping[str, Any]:
    """Return the object in a JSON file, empty if the file is absent.

    Raises:
        ConfigurationError: The file is not a JSON object.
    """
    if not path.exists():
        return {}
    try:
        content = orjson.loads(path.read_bytes())
    except orjson.JSONDecodeError as error:
        raise ConfigurationError(f"{path} is not JSON") from error
    if not isinstance(content, dict):
        raise ConfigurationError(f"{path} is not a JSON object")
    return content


def read_special_tokens(model_dir: Path) -> tuple[str, ...]:
    """Return the spellings of the control tokens in a folder's tokenizer.json, if it has one.

    Their section stands before megabytes of others that need not be parsed for it.

    Raises:
        ConfigurationError: The file is broken.
    """
    path = model_dir / "tokenizer.json"
    if not path.exists():
        return ()
    definition = path.read_bytes()
    section = _ADDED_TOKENS.search(definition)
    try:
        if section is None:
            added = orjson.loads(definition).get("added_tokens", ())
        else:
            added, _ = json.JSONDecoder().raw_decode(definition[section.start(1) :].decode())
        return tuple(token["content"] for token in added if token["special"])
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise ConfigurationError(f"{path} is broken") from error


class FolderTokenizer:
    """`interfaces.Tokenizer` on a `tokenizer.json`. Thread-safe.

    Args:
        definition: The bytes of tokenizer.json.
        config: The object in tokenizer_config.json.

    Raises:
        ConfigurationError: The decoder is of a family we cannot decode exactly.
    """

    def __init__(self, definition: bytes, config: Mapping[str, Any] | None = None) -> None:
        self._definition = definition
        self._parser = parse_tokenizer(definition)
        self._parser.no_truncation()
        self._parser.no_padding()
        fields = _read_parts(self._parser)
        added = self._parser.get_added_tokens_decoder()
        self._special_ids = frozenset(i for i, token in added.items() if token.special)
        self._vocabulary = Vocabulary(
            self._parser.id_to_token,
            partial(self._parser.get_vocab, with_added_tokens=False),
            added_tokens={token.content: i for i, token in added.items()},
            special_ids=self._special_ids,
            decoder=fields.get("decoder"),
        )
        specials = [token for token in added.values() if token.special]
        # What is normalised before it is compared may turn into a control token.
        self._hides_specials = fields.get("normalizer") is not None and any(
            token.normalized for token in specials
        )
        self._special_pattern = re.compile(
            "|".join(re.escape(token.content) for token in specials) or r"(?!)"
        )
        self._bound = TokenBound(fields, self._vocabulary, added.values())
        self._prefix_ids = self._find_prefix(config or {})
        self._document_start_ids = self._find_document_start(config or {})

    @property
    def vocab_size(self) -> int:
        """One more than the highest id that can be decoded."""
        return len(self._vocabulary.token_bytes)

    @property
    def special_token_ids(self) -> frozenset[int]:
        """Added tokens marked special."""
        return self._special_ids

    @property
    def prompt_prefix_ids(self) -> tuple[int, ...]:
        """What a raw completions prompt begins with."""
        return self._prefix_ids

    @property
    def document_start_ids(self) -> tuple[int, ...]:
        """The BOS id, or what separates documents in training; of an empty raw prompt."""
        return self._document_start_ids

    def min_num_tokens(self, text: str) -> int:
        """A lower bound of how many ids `text` encodes to; 0 where none is known."""
        return self._bound(text)

    def encode(self, text: str, *, allow_special: bool) -> list[int]:
        """Encode without adding anything; long text with the interpreter lock released.

        Even where they are allowed, control tokens are only those that the text spells out, not
        those that normalising it would make of other characters.
        """
        if not allow_special:
            needs_plain = self._hides_specials or self._special_pattern.search(text)
            return _encode(self._plain_parser if needs_plain else self._parser, text)
        ids = _encode(self._parser, text)
        if self._hides_specials:
            num_special = sum(map(self._special_ids.__contains__, ids))
            if num_special > sum(1 for _ in self._special_pattern.finditer(text)):
                return self._encode_spelled(text)
        return ids

    def decode(self, token_ids: Sequence[int]) -> str:
        """Decode whole, special tokens left out, invalid bytes as U+FFFD.

        It equals the library's own decoding, but for invalid UTF-8 in byte-fallback vocabularies:
        there the library takes back what it has said, which no stream can do.
        """
        return self._vocabulary.decode(token_ids)

    def token_bytes(self, token_id: int) -> bytes:
        """The exact bytes one id adds to the text."""
        return self._vocabulary.bytes_of(token_id)

    def all_token_bytes(self) -> Sequence[bytes]:
        """`token_bytes` of every id, in a tenth of the time that asking for each would take."""
        return self._vocabulary.token_bytes

    def make_decoder(self, prompt_token_ids: Sequence[int] = ()) -> VocabularyDecoder:
        """A decoder for a sequence that continues `prompt_token_ids`."""
        at_start = all(token_id in self._special_ids for token_id in prompt_token_ids)
        return VocabularyDecoder(self._vocabulary, at_start=at_start)

    @cached_property
    def _plain_parser(self) -> tokenizers.Tokenizer:
        """A second instance that reads control tokens as text, made when one first occurs."""
        parser = parse_tokenizer(self._definition)
        parser.no_truncation()
        parser.no_padding()
        parser.encode_special_tokens = True
        return parser

    def _encode_spelled(self, text: str) -> list[int]:
        """Encode the spelled control tokens as such and all between them as plain text."""
        ids: list[int] = []
        begin = 0
        for match in self._special_pattern.finditer(text):
            ids += _encode(self._plain_parser, text[begin : match.start()])
            ids += _encode(self._parser, match[0])
            begin = match.end()
        return ids + _encode(self._plain_parser, text[begin:])

    def _find_prefix(self, config: Mapping[str, Any]) -> tuple[int, ...]:
        adds_bos = config.get("add_bos_token")
        if adds_bos is None:
            bare = self._parser.encode("a", add_special_tokens=False).ids
            full = self._parser.encode("a").ids
            starts = (i for i in range(len(full)) if full[i : i + len(bare)] == bare)
            return tuple(full[: next(starts, 0)])
        bos = special_token_text(config.get("bos_token"))
        bos_id = self._parser.token_to_id(bos) if adds_bos and bos else None
        return () if bos_id is None else (bos_id,)

    def _find_document_start(self, config: Mapping[str, Any]) -> tuple[int, ...]:
        bos, eos = (special_token_text(config.get(name)) for name in ("bos_token", "eos_token"))
        ids = (self._parser.token_to_id(text) for text in (bos, _DOCUMENT_SEPARATOR, eos) if text)
        return next(((token_id,) for token_id in ids if token_id is not None), ())


def _read_parts(parser: tokenizers.Tokenizer) -> dict[str, Any]:
    """The small sections of tokenizer.json, without parsing its megabytes of tokens again."""
    parts = {name: getattr(parser, name) for name in ("normalizer", "pre_tokenizer", "decoder")}
    return {
        name: None if part is None else orjson.loads(part.__getstate__())
        for name, part in parts.items()
    }


def _encode(parser: tokenizers.Tokenizer, text: str) -> list[int]:
    if len(text) < _LONG_TEXT:
        return parser.encode(text, add_special_tokens=False).ids
    return parser.encode_batch_fast([text], add_special_tokens=False)[0].ids


def special_token_text(token: object) -> str | None:
    """The spelling of a token as tokenizer_config.json writes it: a string or an object."""
    if isinstance(token, dict):
        token = token.get("content")
    return token if isinstance(token, str) else None
