"""Small tokenizers of the two families, made here, and a folder to read them from."""

import json
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers
from tokenizers.trainers import BpeTrainer

from provider_core.text.tokenizer import FolderTokenizer

CORPUS = [
    "the quick brown fox jumps over the lazy dog and says hello world",
    "naïve café 你好世界 안녕하세요 😀😀 👩‍👩‍👧‍👦 مرحبا",
    "STOP here\n\nUser: what is it?\nAssistant: it is aaaaaaaa and 12345",
]
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]


def byte_level() -> Tokenizer:
    """GPT-2's kind: 256 bytes, merges, three control tokens, one visible added token."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = BpeTrainer(
        vocab_size=420,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS * 5, trainer)
    tokenizer.add_tokens([AddedToken("<tool_call>", special=False, normalized=False)])
    return tokenizer


def byte_fallback() -> Tokenizer:
    """Llama 2's kind: metaspace, `<0x..>` for bytes, a first space that goes."""
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    letters = sorted({letter for text in CORPUS[:1] for letter in text if letter != " "} | {"▁"})
    words = ["he", "ll", "hell", "hello", "▁hello", "th", "the", "▁the", "▁w", "▁▁"]
    merges = [
        ("h", "e"), ("l", "l"), ("he", "ll"), ("hell", "o"), ("▁", "hello"), ("t", "h"),
        ("th", "e"), ("▁", "the"), ("▁", "w"), ("▁", "▁"),
    ]  # fmt: skip
    vocab = {piece: i for i, piece in enumerate([*pieces, *letters, *words])}
    tokenizer = Tokenizer(models.BPE(vocab, merges, unk_token="<unk>", byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    tokenizer.add_special_tokens(
        [AddedToken(token, special=True, normalized=False) for token in pieces[:3]]
    )
    return tokenizer


def metaspace() -> Tokenizer:
    """The same vocabulary under the newer `Metaspace` decoder."""
    tokenizer = byte_fallback()
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="first")
    return tokenizer


def served(tokenizer: Tokenizer, **config: object) -> FolderTokenizer:
    """The core's tokenizer on the same definition."""
    return FolderTokenizer(tokenizer.to_str().encode(), config)


def write_folder(folder: Path, tokenizer: Tokenizer, **config: object) -> Path:
    """A model folder with a tokenizer and its configuration."""
    (folder / "tokenizer.json").write_text(tokenizer.to_str(), encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder
