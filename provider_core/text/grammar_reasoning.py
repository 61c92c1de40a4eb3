"""A grammar that binds what is said, and not what is thought before."""

from collections import deque
from collections.abc import Sequence
from typing import Any

import numpy as np

from provider_core.types import Grammar, GrammarMatcher


class AfterReasoning:
    """Any text up to the end of the reasoning, and from there on a grammar. A `types.Grammar`.

    Until then no end of text is allowed, so that there will be an answer.

    Args:
        grammar: Of the answer.
        end_ids: The ids that end the reasoning, at least one; mostly one control token.
        eos_token_ids: What may end a text.
    """

    def __init__(
        self, grammar: Grammar, end_ids: Sequence[int], eos_token_ids: frozenset[int]
    ) -> None:
        self._grammar = grammar
        self._end_ids = tuple(end_ids)
        self._eos_token_ids = eos_token_ids

    def start(self) -> GrammarMatcher:
        """At the beginning of the reasoning."""
        return _Matcher(self._grammar, self._end_ids, self._eos_token_ids)


class _Matcher:
    """One sequence, thinking or answering."""

    def __init__(
        self, grammar: Grammar, end_ids: tuple[int, ...], eos_token_ids: frozenset[int]
    ) -> None:
        self._grammar = grammar
        self._end_ids = end_ids
        self._eos_token_ids = eos_token_ids
        self._last_ids: deque[int] = deque(maxlen=len(end_ids))
        self._answer: GrammarMatcher | None = None

    def fill_bitmask(self, bitmask: Any) -> None:  # as in `GrammarMatcher`
        """Write which ids may come next."""
        if self._answer is not None:
            self._answer.fill_bitmask(bitmask)
            return
        bitmask[:] = -1
        for token_id in self._eos_token_ids:
            word = token_id // 32
            if word < len(bitmask):
                bitmask.view(np.uint32)[word] &= ~np.uint32(1 << token_id % 32)

    def accept(self, token_id: int) -> bool:
        """Take the next id."""
        if self._answer is not None:
            return self._answer.accept(token_id)
        self._last_ids.append(token_id)
        if tuple(self._last_ids) == self._end_ids:
            self._answer = self._grammar.start()
        return True

    @property
    def is_finished(self) -> bool:
        """Nothing but an end of text may follow."""
        return self._answer is not None and self._answer.is_finished
