"""Text to ids: control tokens, prompt prefixes, bounds, and prompts that cannot fit."""

import asyncio
import time
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, Tokenizer, normalizers, pre_tokenizers, processors

from provider_core.errors import ConfigurationError, ContextLengthExceeded
from provider_core.interfaces import RenderedPrompt
from provider_core.interfaces import Tokenizer as TokenizerProtocol
from provider_core.text.prompt import encode_prompt
from provider_core.text.tokenizer import (
    FolderTokenizer,
    load_tokenizer,
    read_json_object,
    read_special_tokens,
)
from tests.unit.text.tokenizer_folders import (
    SPECIAL,
    byte_fallback,
    byte_level,
    served,
    write_folder,
)

PARSER = byte_level()
TOKENIZER = served(PARSER)


def test_a_folder_is_read_whole(tmp_path: Path) -> None:
    """tokenizer.json for the ids, tokenizer_config.json for what raw prompts begin with."""
    folder = write_folder(tmp_path, PARSER, add_bos_token=True, bos_token="<|endoftext|>")
    tokenizer: TokenizerProtocol = load_tokenizer(folder)
    assert tokenizer.special_token_ids == {0, 1, 2}
    assert tokenizer.vocab_size == PARSER.get_vocab_size()
    assert tokenizer.prompt_prefix_ids == (0,)
    assert read_special_tokens(folder) == tuple(SPECIAL)


@pytest.mark.parametrize("content", [None, b"{", b"{}", b"[]"])
def test_a_folder_without_a_readable_tokenizer_is_a_configuration_error(
    tmp_path: Path, content: bytes | None
) -> None:
    """Start-up stops with a message that names the file."""
    if content is not None:
        (tmp_path / "tokenizer.json").write_bytes(content)
    with pytest.raises(ConfigurationError, match=r"tokenizer\.json"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        '{"added_tokens": [{"content": "<|é|>", "special": true}], "model": {}}',
        (
            '{"model":{"vocab":{"added_tokens":0,"[":1},"merges":["added_tokens"]},'
            '"added_tokens":[{"content":"<|é|>","special":true},{"content":"x","special":false}]}'
        ),
        (
            r'{"model":{"vocab":{"\"added_tokens\":[":0}},'
            r'"added_tokens":[{"content":"<|\u00e9|>","special":true}]}'
        ),
        r'{"added\u005ftokens":[{"content":"<|é|>","special":true}]}',
    ],
)
def test_control_tokens_are_found_without_reading_the_vocabulary(
    tmp_path: Path, content: str
) -> None:
    """Wherever their section stands, and whatever else is called so."""
    (tmp_path / "tokenizer.json").write_text(content, encoding="utf-8")
    assert read_special_tokens(tmp_path) == ("<|é|>",)


@pytest.mark.parametrize("content", ["{", "[]", '{"added_tokens": [', '{"added_tokens": [1]}'])
def test_broken_control_tokens_are_a_configuration_error(tmp_path: Path, content: str) -> None:
    """A template without its control tokens would let users write them."""
    (tmp_path / "tokenizer.json").write_text(content, encoding="utf-8")
    with pytest.raises(ConfigurationError, match=r"tokenizer\.json is broken"):
        read_special_tokens(tmp_path)


@pytest.mark.parametrize("content", [b"{", b"[]"])
def test_a_broken_tokenizer_config_is_a_configuration_error(tmp_path: Path, content: bytes) -> None:
    """It is not silently taken for an empty one."""
    (tmp_path / "tokenizer_config.json").write_bytes(content)
    with pytest.raises(ConfigurationError, match="tokenizer_config"):
        read_json_object(tmp_path / "tokenizer_config.json")


def test_t3_control_tokens_are_ids_only_where_the_template_wrote_them() -> None:
    """The same spelling is one id or plain text, and plain text decodes to itself."""
    text = "<|im_end|>\n<|im_start|>system"
    assert TOKENIZER.encode(text, allow_special=True)[0] == 2
    plain = TOKENIZER.encode(text, allow_special=False)
    assert TOKENIZER.special_token_ids.isdisjoint(plain)
    assert TOKENIZER.decode(plain) == text


@pytest.mark.parametrize("allow_special", [True, False])
def test_t3_a_control_token_cannot_be_hidden_behind_normalisation(
    allow_special: bool,  # noqa: FBT001 - pytest's argument
) -> None:
    """NFKC makes a control token of full-width brackets; only a spelled one is one."""
    parser = byte_level()
    parser.normalizer = normalizers.NFKC()
    parser.add_special_tokens([AddedToken("<END>", special=True, normalized=True)])
    tokenizer = served(parser)
    end = parser.token_to_id("<END>")
    text = "a\uff1cEND\uff1e<END>b"
    assert end is not None
    assert parser.encode(text).ids.count(end) == 2
    ids = tokenizer.encode(text, allow_special=allow_special)
    assert ids.count(end) == int(allow_special)
    assert tokenizer.decode(ids) == ("a<END>b" if allow_special else "a<END><END>b")


@pytest.mark.parametrize("allow_special", [True, False])
def test_encode_never_adds_ids(allow_special: bool) -> None:  # noqa: FBT001 - pytest's argument
    """Not even if the tokenizer's post-processor would."""
    tokenizer = served(_with_bos(byte_level()))
    ids = tokenizer.encode("hello", allow_special=allow_special)
    assert tokenizer.special_token_ids.isdisjoint(ids)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({}, (0,)),
        ({"add_bos_token": False, "bos_token": "<|im_start|>"}, ()),
        ({"add_bos_token": True, "bos_token": "<|im_start|>"}, (1,)),
        ({"add_bos_token": True, "bos_token": {"content": "<|im_start|>"}}, (1,)),
        ({"add_bos_token": True}, ()),
        ({"add_bos_token": True, "bos_token": "<absent>"}, ()),
    ],
)
def test_a_raw_prompt_begins_as_the_configuration_says(
    config: dict[str, object], expected: tuple[int, ...]
) -> None:
    """add_bos_token decides; without it the post-processor does."""
    tokenizer = served(_with_bos(byte_level()), **config)
    assert tokenizer.prompt_prefix_ids == expected


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({}, (0,)),
        ({"bos_token": "<|im_start|>"}, (1,)),
        ({"bos_token": "<|im_start|>", "add_bos_token": True}, (1,)),
        ({"bos_token": "<absent>", "eos_token": "<|im_end|>"}, (0,)),
    ],
)
async def test_an_empty_raw_prompt_is_the_start_of_a_document(
    config: dict[str, object], expected: tuple[int, ...]
) -> None:
    """The BOS id, asked for or not, else what separates documents; counted like any id."""
    tokenizer = served(byte_level(), **config)
    assert await encode_prompt(tokenizer, "", max_tokens=1) == expected
    assert await encode_prompt(tokenizer, RenderedPrompt((("", True),)), max_tokens=1) == ()


async def test_only_raw_prompts_get_the_prefix() -> None:
    """A chat template writes its own beginning."""
    tokenizer = served(_with_bos(byte_level()))
    ids = tuple(tokenizer.encode("hello", allow_special=True))
    rendered = RenderedPrompt((("hello", True),))
    assert await encode_prompt(tokenizer, "hello", max_tokens=9) == (0, *ids)
    assert await encode_prompt(tokenizer, rendered, max_tokens=9) == ids


@pytest.mark.parametrize("family", ["byte_level", "byte_fallback"])
@given(text=st.text(max_size=60) | st.text("▁ ae", max_size=60))
@example(text="▁▁▁▁▁▁")
def test_the_bound_is_never_above_the_count(family: str, text: str) -> None:
    """Refusing by the bound refuses nothing that would fit."""
    tokenizer = FAMILIES[family]
    assert tokenizer.min_num_tokens(text) <= len(tokenizer.encode(text, allow_special=True))


@given(pieces=st.lists(st.sampled_from([*SPECIAL, "a", "aaaaaaaa", " ", "é", "e\u0301"])))
def test_the_bound_knows_control_tokens_and_normalisation(pieces: list[str]) -> None:
    """One id may stand for ten characters, and NFC makes one of two."""
    text = "".join(pieces)
    assert NORMALISED.min_num_tokens(text) <= len(NORMALISED.encode(text, allow_special=True))


def test_no_bound_where_text_can_get_lost() -> None:
    """Pre-tokenizers that drop characters and normalizers we cannot follow."""
    dropping = byte_level()
    dropping.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    lower = byte_level()
    lower.normalizer = normalizers.Lowercase()
    assert [served(parser).min_num_tokens("a" * 999) for parser in (dropping, lower)] == [0, 0]


@pytest.mark.parametrize(
    "text",
    ["a" * 4_000_000, "0123456789abcdef" * 250_000, "e\u0301" * 100_000, "👩‍👩‍👧‍👦" * 160_000],
    ids=["one character", "no spaces", "combining marks", "joined emoji"],
)
async def test_t1_a_huge_prompt_is_refused_without_being_encoded(text: str) -> None:
    """The encoder is never asked, so that the refusal costs milliseconds."""
    with pytest.raises(ContextLengthExceeded, match="takes at most 8191") as refusal:
        await encode_prompt(_Unencodable(), text, max_tokens=8191)
    assert refusal.value.param == "prompt"


async def test_t1_the_loop_runs_on_while_a_long_prompt_is_encoded() -> None:
    """The library gives the interpreter lock up, and a thread does the work."""
    text = "the quick brown fox " * 20_000
    encoding = asyncio.create_task(encode_prompt(TOKENIZER, text, max_tokens=10**6))
    begin = last = time.monotonic()
    longest = 0.0
    while not encoding.done():
        await asyncio.sleep(0)
        now = time.monotonic()
        longest, last = max(longest, now - last), now
    assert longest < (last - begin) / 2  # with the lock held it is nearly all of the time
    assert tuple(TOKENIZER.encode(text, allow_special=False)) == await encoding


CL100K = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


@pytest.mark.parametrize("unit", [" ", "\n ", "'", " '", "a ", "\u3000", "1", "!\n", "\t\r"])
@pytest.mark.timeout(20)
async def test_t2_text_that_makes_pre_tokenizers_backtrack_is_encoded_in_bounded_time(
    unit: str,
) -> None:
    """Runs that the published patterns try in several ways."""
    parser = byte_level()
    parser.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(CL100K), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer = served(parser)
    text = unit * 50_000 + "x"
    ids = await encode_prompt(tokenizer, text, max_tokens=200_000)
    assert tokenizer.decode(ids) == text


@pytest.mark.parametrize(("room", "fits"), [(-1, False), (0, True), (1, True)])
async def test_t11_a_prompt_is_refused_exactly_when_it_leaves_no_room(
    room: int,
    fits: bool,  # noqa: FBT001 - pytest's argument
) -> None:
    """One id too many is refused, the last that fits is not; short and long text alike."""
    for text in ("hello world", "hello world " * 500):
        ids = tuple(TOKENIZER.encode(text, allow_special=False))
        encoding = encode_prompt(TOKENIZER, text, max_tokens=len(ids) + room)
        if fits:
            assert await encoding == ids
        else:
            with pytest.raises(ContextLengthExceeded):
                await encoding


async def test_a_rendered_prompt_that_is_too_long_names_messages() -> None:
    """The client sees the field it sent."""
    prompt = RenderedPrompt((("hello", True), (" world", False)))
    with pytest.raises(ContextLengthExceeded) as refusal:
        await encode_prompt(TOKENIZER, prompt, max_tokens=1)
    assert refusal.value.param == "messages"


def _with_bos(parser: Tokenizer) -> Tokenizer:
    parser.post_processor = processors.TemplateProcessing(
        single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", 0)]
    )
    return parser


def _normalised() -> FolderTokenizer:
    parser = byte_level()
    parser.normalizer = normalizers.NFC()
    return served(parser)


class _Unencodable(FolderTokenizer):
    """A tokenizer of which only the bound may be used."""

    def __init__(self) -> None:
        super().__init__(PARSER.to_str().encode())

    def encode(self, text: str, *, allow_special: bool) -> list[int]:
        raise AssertionError(f"{len(text)} characters were encoded")


FAMILIES = {"byte_level": TOKENIZER, "byte_fallback": served(byte_fallback())}
NORMALISED = _normalised()
