r"""Log probabilities in the two shapes that clients know.

A token's `bytes` are exact even when they are part of a character. Its string cannot be, so a
token that is no valid UTF-8 is written as OpenAI writes it: `bytes:\xf0\x9f`.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

from provider_core.types import TokenLogprobs

DecodeToken = Callable[[int], tuple[str, bytes]]
"""A token id to its string and its exact bytes."""

_CACHED_TOKENS = 65536  # decoded tokens kept per model
_LEAST_LOGPROB = -9999.0  # OpenAI's stand-in for minus infinity, which JSON cannot say


def make_decode_token(token_bytes: Callable[[int], bytes]) -> DecodeToken:
    """Decode tokens by a tokenizer's `token_bytes`, remembering the answers."""

    @lru_cache(_CACHED_TOKENS)
    def decode_token(token_id: int) -> tuple[str, bytes]:
        raw = token_bytes(token_id)
        try:
            return raw.decode(), raw
        except UnicodeDecodeError:
            return "bytes:" + "".join(f"\\x{byte:02x}" for byte in raw), raw

    return decode_token


class ChatLogprobs:
    """The `logprobs` of a chat's choices, in one piece or chunk by chunk."""

    def __init__(self, decode_token: DecodeToken) -> None:
        self._decode_token = decode_token

    def encode(self, _index: int, logprobs: Sequence[TokenLogprobs]) -> dict[str, Any]:
        """One object per token, alternatives inside."""
        content = []
        for entry in logprobs:
            chosen = self._token(entry.token_id, entry.logprob)
            chosen["top_logprobs"] = [self._token(*alternative) for alternative in entry.top]
            content.append(chosen)
        return {"content": content, "refusal": None}

    def _token(self, token_id: int, logprob: float | None) -> dict[str, Any]:
        text, raw = self._decode_token(token_id)
        return {"token": text, "logprob": _json_logprob(logprob), "bytes": list(raw)}


class CompletionLogprobs:
    """The `logprobs` of a text completion's choices, in one piece or chunk by chunk.

    `text_offset` counts the characters of the choice's text before each token, echo included.
    """

    def __init__(self, decode_token: DecodeToken) -> None:
        self._decode_token = decode_token
        self._offsets: defaultdict[int, int] = defaultdict(int)  # characters so far, by choice

    def encode(self, index: int, logprobs: Sequence[TokenLogprobs]) -> dict[str, Any]:
        """Four lists with one item per token."""
        tokens, token_logprobs, top_logprobs, offsets = [], [], [], []
        for entry in logprobs:
            text, raw = self._decode_token(entry.token_id)
            is_known = entry.logprob is not None  # the first token of a prompt has none
            tokens.append(text)
            token_logprobs.append(_json_logprob(entry.logprob) if is_known else None)
            top_logprobs.append(self._top(entry) if is_known else None)
            offsets.append(self._offsets[index])
            # A character counts for the token that holds its first byte.
            self._offsets[index] += sum(byte & 0xC0 != 0x80 for byte in raw)
        return {
            "tokens": tokens,
            "token_logprobs": token_logprobs,
            "top_logprobs": top_logprobs,
            "text_offset": offsets,
        }

    def _top(self, entry: TokenLogprobs) -> dict[str, float]:
        """The likeliest tokens and, as OpenAI does, the chosen one if it is not among them."""
        top: dict[str, float] = {}
        for token_id, logprob in (*entry.top, (entry.token_id, entry.logprob)):
            top.setdefault(self._decode_token(token_id)[0], _json_logprob(logprob))
        return top


def _json_logprob(logprob: float | None) -> float:
    # NaN is not above anything, so it ends up as the least, too.
    return logprob if logprob is not None and logprob > _LEAST_LOGPROB else _LEAST_LOGPROB
