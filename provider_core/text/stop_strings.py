"""Stop strings across token boundaries: what could still become one is held back.

The text ends where the first stop string is complete, reading character by character; of several
that are complete at the same place the longest counts. So the result does not depend on how the
text was cut into pieces.

Each stop string has its own Knuth-Morris-Pratt automaton, so that a character costs constant time
whatever the stop strings and the text are.
"""

import re
from collections.abc import Sequence


class StopStrings:
    """The stop strings of one request, prepared once for all its choices.

    Args:
        stop_strings: Empty ones are left out.
    """

    def __init__(self, stop_strings: Sequence[str]) -> None:
        self.patterns = tuple(dict.fromkeys(filter(None, stop_strings)))
        self.borders = tuple(map(_border_table, self.patterns))
        first = "".join(sorted({pattern[0] for pattern in self.patterns}))
        self.find_first = re.compile(f"[{re.escape(first)}]" if first else r"(?!)").search

    def __bool__(self) -> bool:
        """Whether there is any."""
        return bool(self.patterns)


class StopMatcher:
    """Watches one choice's text.

    Attributes:
        matched: The stop string that ended the text, else `None`. Nothing may be fed after it.
    """

    __slots__ = ("_held", "_states", "_stop_strings", "matched")

    def __init__(self, stop_strings: StopStrings) -> None:
        self._stop_strings = stop_strings
        self._states = [0] * len(stop_strings.patterns)  # characters matched of each
        self._held = ""  # the longest of the matched beginnings
        self.matched: str | None = None

    def feed(self, text: str) -> str:
        """Take new text in; return what no stop string can reach any more.

        If a stop string is complete, `matched` says which, and what is returned is the last of the
        text before it.
        """
        if not self._held and not self._stop_strings.find_first(text):
            return text
        patterns, borders = self._stop_strings.patterns, self._stop_strings.borders
        states = self._states
        seen = self._held + text
        for end, character in enumerate(text, len(self._held) + 1):
            longest = 0
            for i, pattern in enumerate(patterns):
                state = states[i]
                while state and pattern[state] != character:
                    state = borders[i][state - 1]
                if pattern[state] == character:
                    state += 1
                states[i] = state
                if state == len(pattern):
                    if state > longest:
                        self.matched, longest = pattern, state
                    states[i] = borders[i][state - 1]
            if longest:
                self._held = ""
                return seen[: end - longest]
        num_held = max(states)
        self._held = seen[len(seen) - num_held :]
        return seen[: len(seen) - num_held]

    def flush(self) -> str:
        """Return what was held back; no more text will come."""
        held, self._held = self._held, ""
        return held


def _border_table(pattern: str) -> list[int]:
    """For each beginning of `pattern`, the length of the longest proper border of it."""
    borders = [0] * len(pattern)
    length = 0
    for i in range(1, len(pattern)):
        while length and pattern[i] != pattern[length]:
            length = borders[length - 1]
        if pattern[i] == pattern[length]:
            length += 1
        borders[i] = length
    return borders
