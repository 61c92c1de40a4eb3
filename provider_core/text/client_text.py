"""Keeping what clients typed apart from what the template wrote.

A control token is one id when the template writes it and plain text when a client does. Clients'
strings pass through the template, so their control tokens are replaced before by digits that
nobody can guess and that no filter changes, and the rendered prompt is cut at those afterwards.
The end of a string that could become a control token together with the next one is treated alike.
"""

import re
import secrets
from collections.abc import Mapping, Sequence
from typing import Any

from provider_core.errors import InvalidRequest

_MAX_DEPTH = 100  # of nested JSON in tools and arguments
_CHARS_PER_VALUE = 16  # what a JSON value costs beside its text


class ControlTokens:
    """What only a template may write.

    Args:
        spellings: As they stand in text.

    Attributes:
        pattern: Matches any of them.
        beginnings: Their proper beginnings, but for plain words, which occur in any text.
        max_beginning: Length of the longest of those.
    """

    def __init__(self, spellings: Sequence[str]) -> None:
        longest_first = sorted(filter(None, spellings), key=len, reverse=True)
        self.pattern = re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")
        self.beginnings = frozenset(
            spelling[:length]
            for spelling in longest_first
            for length in range(1, len(spelling))
            if not spelling[:length].isalnum()
        )
        self.max_beginning = max(map(len, self.beginnings), default=0)


class ClientText:
    """The client's strings in one rendering.

    Args:
        control_tokens: Of the model.

    Attributes:
        num_chars: Size of all that was masked, for the rendering's budget.
    """

    def __init__(self, control_tokens: ControlTokens) -> None:
        self.num_chars = 0
        self._control_tokens = control_tokens
        self._nonce = unguessable_digits()
        self._pieces: list[str] = []

    def mask(self, value: Any, depth: int = 0) -> Any:
        """Return a JSON value with its control tokens replaced, keys included.

        Raises:
            InvalidRequest: It nests too deep.
        """
        self.num_chars += _CHARS_PER_VALUE
        if isinstance(value, str):
            return self._mask_text(value)
        if depth > _MAX_DEPTH:
            raise InvalidRequest(f"messages nest deeper than {_MAX_DEPTH}", param="messages")
        if isinstance(value, Mapping):
            return {self._mask_text(key): self.mask(item, depth + 1) for key, item in value.items()}
        if isinstance(value, Sequence):
            return [self.mask(item, depth + 1) for item in value]
        return value

    def mask_message(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """Mask a message but for its role, which templates turn into control tokens."""
        masked: dict[str, Any] = self.mask(message)
        return masked | {"role": message["role"]}

    def split(self, text: str) -> tuple[tuple[str, bool], ...]:
        """Cut a rendered prompt into the segments of a `RenderedPrompt`."""
        if not self._pieces:
            return ((text, True),)
        parts = re.split(self._nonce + r"(\d{6})", text)
        segments = []
        for i, part in enumerate(parts):
            if part:
                segments.append((self._pieces[int(part)], False) if i % 2 else (part, True))
        return tuple(segments)

    def _mask_text(self, text: str) -> str:
        self.num_chars += len(text)
        tokens = self._control_tokens
        masked = tokens.pattern.sub(lambda match: self._replace(match[0]), text)
        for length in range(min(tokens.max_beginning, len(masked)), 0, -1):
            if masked[-length:] in tokens.beginnings:
                return masked[:-length] + self._replace(masked[-length:])
        return masked

    def _replace(self, piece: str) -> str:
        self._pieces.append(piece)
        return f"{self._nonce}{len(self._pieces) - 1:06d}"


def unguessable_digits() -> str:
    """A string that nobody can guess and that every filter of a template leaves alone."""
    return str(secrets.randbelow(9 * 10**29) + 10**29)
