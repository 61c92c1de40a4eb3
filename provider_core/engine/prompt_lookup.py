"""Drafts without a model: what followed the same few ids when they last occurred in the text.

Prompt-lookup decoding (Apoorv Saxena, "Prompt Lookup Decoding", 2023,
github.com/apoorvumang/prompt-lookup-decoding): answers that quote, extract or rewrite the prompt
repeat runs of its ids, and text that loops repeats its own.
"""

from collections.abc import Iterable

GRAM_SIZES = (3, 2)
"""How many last ids are looked up, the most telling first."""


class PromptLookup:
    """An index of every n-gram of a text by where it was last followed by something.

    Adding an id costs two dictionary entries, whatever the length of the text: under a microsecond
    and some 270 bytes, so 0.1 s and 35 MB for a prompt of 128k.

    Args:
        token_ids: The text so far.
    """

    __slots__ = ("_following", "_ids")

    def __init__(self, token_ids: Iterable[int] = ()) -> None:
        self._ids: list[int] = []
        # By size of gram: where the id is that followed the gram's latest occurrence.
        self._following: tuple[dict[tuple[int, ...], int], ...] = tuple({} for _ in GRAM_SIZES)
        self.extend(token_ids)

    def __len__(self) -> int:
        return len(self._ids)

    def extend(self, token_ids: Iterable[int]) -> None:
        """Add ids at the end of the text."""
        ids = self._ids
        num_before = len(ids)
        ids.extend(token_ids)
        for size, following in zip(GRAM_SIZES, self._following, strict=True):
            first = max(num_before - size, 0)
            grams = zip(*(ids[first + i :] for i in range(size)), strict=False)
            # The last gram has nothing behind it yet: the shorter range leaves it out.
            following.update(zip(grams, range(first + size, len(ids)), strict=False))

    def find(self) -> tuple[int, int] | None:
        """Where the text's end occurred before.

        Returns:
            The size of the gram that did, and the position of what followed it.
        """
        for size, following in zip(GRAM_SIZES, self._following, strict=True):
            position = following.get(tuple(self._ids[-size:]))
            if position is not None:
                return size, position
        return None

    def draft(self, position: int, num_tokens: int) -> list[int]:
        """The ids from `position` on; past the end of the text its last period goes on.

        Args:
            position: As `find` gave it.
            num_tokens: At least 1.
        """
        draft = self._ids[position : position + num_tokens]
        if len(draft) < num_tokens:  # the gram overlaps its own continuation: a loop
            draft = (draft * -(-num_tokens // len(draft)))[:num_tokens]
        return draft
