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
        open: That opens reasoning, if that is one id.
        close: That close it, at least one.
        gap: Line breaks that may stand between that and the answer.
        eos: What may end a text.
    """

    open: int | None
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
    if is_open:
        return reasoning
    return grammar if ids.open is None else _MaybeReasoning(ids.open, reasoning, grammar)


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
    """A reply that may open its reasoning itself, with its first token."""

    open_id: int
    reasoning: Grammar
    answer: Grammar

    def start(self) -> GrammarMatcher:
        """At the beginning of the reply."""
        return _MaybeMatcher(self.open_id, self.reasoning, self.answer.start())


class _MaybeMatcher:
    def __init__(self, open_id: int, reasoning: Grammar, answer: GrammarMatcher) -> None:
        self._open_id = open_id
        self._reasoning = reasoning
        self._matcher = answer
        self._is_decided = False

    def fill_bitmask(self, bitmask: Any) -> None:  # as in `GrammarMatcher`
        self._matcher.fill_bitmask(bitmask)
        if not self._is_decided:
            _allow(bitmask, self._open_id)

    def accept(self, token_id: int) -> bool:
        is_first, self._is_decided = not self._is_decided, True
        if is_first and token_id == self._open_id:
            self._matcher = self._reasoning.start()
            return True
        return self._matcher.accept(token_id)

    @property
    def is_finished(self) -> bool:
        return self._matcher.is_finished


def _allow(bitmask: _Words, token_id: int) -> None:
    word = token_id // 32
    if word < len(bitmask):
        bitmask.view(np.uint32)[word] |= np.uint32(1 << token_id % 32)
