"""How long a model may reason, and what binds it afterwards: grammars around a grammar.

Without a grammar of the answer and without a budget none of this is needed: reasoning is free.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from provider_core.text.grammar_reasoning import AfterReasoning
from provider_core.types import Grammar, GrammarMatcher

_MAX_GAP = 2  # ids

_Words = npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReasoningIds:
    """A model's tags as ids.

    Attributes:
        open: That open it, at least one.
        close: That close it, at least one.
        gap: Line breaks that may stand between that and the answer.
        eos: What may end a text.
    """

    open: tuple[int, ...]
    close: tuple[int, ...]
    gap: frozenset[int]
    eos: frozenset[int]


def reasoning_grammar(
    ids: ReasoningIds, *, answer: Grammar | None, max_tokens: int | None, is_open: bool
) -> Grammar | None:
    """Limit the reasoning to a budget, and bind what follows it to a grammar.

    Args:
        ids: The tags.
        answer: What follows has to be; `None` is anything.
        max_tokens: Most tokens of reasoning, after which it is closed; `None` is any number.
        is_open: The prompt has opened the reasoning; else the reply may do so, first thing.

    Returns:
        The grammar of the whole reply, or `None` if it is free.
    """
    if answer is None and max_tokens is None:
        return None
    grammar: Grammar = _FreeText() if answer is None else answer
    behind = grammar if answer is None else _Gap(answer, ids.gap)
    reasoning: Grammar = AfterReasoning(behind, ids.close, ids.eos)
    if max_tokens is not None:
        reasoning = _Budget(reasoning, ids.close, max_tokens)
    return reasoning if is_open else _MaybeReasoning(ids.open, reasoning, grammar)


class _FreeText:
    """Any text. A `types.Grammar`, and its own matcher: it has no state."""

    is_finished = False

    def start(self) -> GrammarMatcher:
        """At the beginning."""
        return self

    def fill_bitmask(self, bitmask: Any) -> None:  # as in `GrammarMatcher`
        """Allow everything."""
        bitmask[:] = -1

    def accept(self, token_id: int) -> bool:  # noqa: ARG002 - as in `GrammarMatcher`
        """Take anything."""
        return True


@dataclass(frozen=True, slots=True)
class _Gap:
    """The line breaks that models write between their reasoning and the answer."""

    answer: Grammar
    gap_ids: frozenset[int]

    def start(self) -> GrammarMatcher:
        """Behind the closing tag."""
        return _GapMatcher(self.answer.start(), self.gap_ids)


class _GapMatcher:
    def __init__(self, answer: GrammarMatcher, gap_ids: frozenset[int]) -> None:
        self._answer = answer
        self._gap_ids = gap_ids
        self._num_left = _MAX_GAP

    def fill_bitmask(self, bitmask: Any) -> None:  # as in `GrammarMatcher`
        self._answer.fill_bitmask(bitmask)
        if self._num_left:
            for token_id in self._gap_ids:
                _allow(bitmask, token_id)

    def accept(self, token_id: int) -> bool:
        if self._num_left and token_id in self._gap_ids:
            self._num_left -= 1
            return True
        self._num_left = 0
        return self._answer.accept(token_id)

    @property
    def is_finished(self) -> bool:
        return self._answer.is_finished


@dataclass(frozen=True, slots=True)
class _Budget:
    """Closes the reasoning after so many tokens."""

    reasoning: Grammar
    close_ids: tuple[int, ...]
    max_tokens: int

    def start(self) -> GrammarMatcher:
        """Behind the opening tag."""
        return _BudgetMatcher(self.reasoning.start(), self.close_ids, self.max_tokens)


class _BudgetMatcher:
    def __init__(
        self, reasoning: GrammarMatcher, close_ids: tuple[int, ...], num_left: int
    ) -> None:
        self._matcher = reasoning
        self._close_ids = close_ids
        self._num_left = num_left
        self._num_closed = 0  # of the closing ids, the last ones that came

    def fill_bitmask(self, bitmask: Any) -> None:  # as in `GrammarMatcher`
        if self._num_left > 0 or self._is_closed:
            self._matcher.fill_bitmask(bitmask)
        else:
            bitmask[:] = 0
            _allow(bitmask, self._close_ids[self._num_closed])

    def accept(self, token_id: int) -> bool:
        if not self._is_closed:
            self._num_left -= 1
            if token_id != self._close_ids[self._num_closed]:
                self._num_closed = 0
            if token_id == self._close_ids[self._num_closed]:
                self._num_closed += 1
        return self._matcher.accept(token_id)

    @property
    def is_finished(self) -> bool:
        return self._matcher.is_finished

    @property
    def _is_closed(self) -> bool:
        return self._num_closed == len(self._close_ids)


@dataclass(frozen=True, slots=True)
class _MaybeReasoning:
    """A reply that may open its reasoning itself, first thing."""

    open_ids: tuple[int, ...]
    reasoning: Grammar
    answer: Grammar

    def start(self) -> GrammarMatcher:
        """At the beginning of the reply."""
        return _MaybeMatcher(self.open_ids, self.reasoning, self.answer.start())


class _MaybeMatcher:
    """Follows the opening tag and the answer, as long as it may be either."""

    def __init__(
        self, open_ids: tuple[int, ...], reasoning: Grammar, answer: GrammarMatcher
    ) -> None:
        self._open_ids = open_ids
        self._reasoning = reasoning
        self._matcher = answer
        self._num_opened = 0  # ids of the tag that were written
        self._may_open = True
        self._may_answer = True
        self._answer_allows_tag = False  # its next id is allowed by the answer, too

    def fill_bitmask(self, bitmask: Any) -> None:  # as in `GrammarMatcher`
        if self._may_answer:
            self._matcher.fill_bitmask(bitmask)
        else:
            bitmask[:] = 0
        if self._may_open:
            tag_id = self._open_ids[self._num_opened]
            self._answer_allows_tag = self._may_answer and _is_allowed(bitmask, tag_id)
            _allow(bitmask, tag_id)

    def accept(self, token_id: int) -> bool:
        if not self._may_open:
            return self._matcher.accept(token_id)
        if token_id != self._open_ids[self._num_opened]:
            self._may_open = False
            return self._may_answer and self._matcher.accept(token_id)
        self._num_opened += 1
        if self._num_opened == len(self._open_ids):
            self._may_open, self._may_answer = False, True
            self._matcher = self._reasoning.start()
            return True
        self._may_answer = self._answer_allows_tag and self._matcher.accept(token_id)
        return True

    @property
    def is_finished(self) -> bool:
        return self._may_answer and not self._may_open and self._matcher.is_finished


def _allow(bitmask: _Words, token_id: int) -> None:
    word = token_id // 32
    if word < len(bitmask):
        bitmask.view(np.uint32)[word] |= np.uint32(1 << token_id % 32)


def _is_allowed(bitmask: _Words, token_id: int) -> bool:
    word = token_id // 32
    return word < len(bitmask) and bool(bitmask[word] >> (token_id % 32) & 1)
