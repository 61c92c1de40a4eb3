"""A grammar that is a list: which ids may come at each position."""

from collections.abc import Callable, Collection, Sequence

import numpy as np
import numpy.typing as npt

from tests.unit.engine.core_bench import EOS


class ScriptedGrammar:
    """Allows the ids of one set after the other, and nothing behind the last.

    Args:
        steps: The ids allowed at each position; where they hold EOS the text may end.
        on_fill: Called with the position at each mask; may raise or wait.
        on_accept: Called with each id; may raise.
    """

    def __init__(
        self,
        *steps: Collection[int],
        on_fill: Callable[[int], object] = lambda _: None,
        on_accept: Callable[[int], object] = lambda _: None,
    ) -> None:
        self.steps: Sequence[Collection[int]] = steps
        self.on_fill = on_fill
        self.on_accept = on_accept

    def start(self) -> "ScriptedMatcher":
        """At the first position."""
        return ScriptedMatcher(self)


class ScriptedMatcher:
    """One sequence's position in the list."""

    def __init__(self, grammar: ScriptedGrammar) -> None:
        self._grammar = grammar
        self._position = 0
        self.is_finished = False

    def fill_bitmask(self, bitmask: npt.NDArray[np.int32]) -> None:
        """Set the bits of the position's ids."""
        self._grammar.on_fill(self._position)
        words = np.zeros(len(bitmask), dtype=np.uint32)
        for token_id in self._grammar.steps[self._position]:
            words[token_id // 32] |= np.uint32(1 << token_id % 32)
        bitmask[:] = words.view(np.int32)

    def accept(self, token_id: int) -> bool:
        """Go on by one position."""
        self._grammar.on_accept(token_id)
        is_allowed = token_id in self._grammar.steps[self._position]
        self._position += 1
        self.is_finished = token_id == EOS or self._position == len(self._grammar.steps)
        return is_allowed
