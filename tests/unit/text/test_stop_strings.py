"""Stop strings: never shown, never missed, and nothing withheld for good."""

from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from provider_core.text.stop_strings import StopMatcher, StopStrings


def run(stops: Sequence[str], pieces: Sequence[str]) -> tuple[str, str | None]:
    """All text that comes out, and the stop string that ended it."""
    matcher = StopMatcher(StopStrings(stops))
    shown = []
    for piece in pieces:
        shown.append(matcher.feed(piece))
        if matcher.matched:
            return "".join(shown), matcher.matched
    return "".join([*shown, matcher.flush()]), None


def expected(stops: Sequence[str], text: str) -> tuple[str, str | None]:
    """The definition: the stop string that is complete first; of several the longest."""
    for end in range(1, len(text) + 1):
        complete = [stop for stop in stops if stop and text[:end].endswith(stop)]
        if complete:
            longest = max(complete, key=len)
            return text[: end - len(longest)], longest
    return text, None


@given(
    stops=st.lists(st.text("ab\n", max_size=5), max_size=4),
    pieces=st.lists(st.text("ab\n", max_size=4), max_size=12),
)
@example(stops=["ab", "b"], pieces=["ab"])
@example(stops=["b", "ab"], pieces=["a", "b"])
def test_any_cut_of_a_text_gives_what_the_definition_says(
    stops: list[str], pieces: list[str]
) -> None:
    """Overlapping stops and stops inside stops included."""
    assert run(stops, pieces) == expected(stops, "".join(pieces))


@pytest.mark.parametrize("num_pieces", [2, 3, 4, 5])
def test_bug_06_a_stop_string_over_several_tokens_is_found_and_never_shown(num_pieces: int) -> None:
    """No piece of it leaves before it is complete."""
    stop = "\n\nUser:"
    cuts = [len(stop) * i // num_pieces for i in range(num_pieces + 1)]
    pieces = [stop[a:b] for a, b in pairwise(cuts)]
    assert run([stop], ["so ", *pieces, " more"]) == ("so ", stop)


def test_bug_06_of_overlapping_stops_the_first_complete_one_wins() -> None:
    """Although another began before it."""
    assert run(["abcd", "bc"], ["ab", "cd"]) == ("a", "bc")


def test_only_what_could_still_become_a_stop_is_held() -> None:
    """Text that is ruled out leaves at once."""
    matcher = StopMatcher(StopStrings(["STOP"]))
    assert [matcher.feed(piece) for piece in ["a S", "T", "x ST", "OR", "E"]] == [
        "a ",
        "",
        "STx ",
        "STOR",
        "E",
    ]


def test_bug_07_the_tail_is_given_at_the_end() -> None:
    """A text may end with the beginning of a stop string."""
    matcher = StopMatcher(StopStrings(["STOP"]))
    assert matcher.feed("the STO") == "the "
    assert matcher.flush() == "STO"
    assert matcher.flush() == ""


@pytest.mark.parametrize("first", list("]^-\\[a&~|"))
def test_stops_may_begin_with_any_character(first: str) -> None:
    """Those that mean something in patterns too."""
    assert run([first + "x"], ["say ", first, "x"]) == ("say ", first + "x")


def test_t9_a_hostile_stop_string_costs_linear_time() -> None:
    """Each character moves each automaton a bounded number of states, amortised."""
    stop = "a" * 10_000 + "b"
    assert run([stop], ["a" * 100_000, "c"]) == ("a" * 100_000 + "c", None)


def test_no_stop_strings_are_false() -> None:
    """Empty ones are none: they would end every text before it begins."""
    assert not StopStrings(["", ""])
    assert run([""], ["text"]) == ("text", None)
