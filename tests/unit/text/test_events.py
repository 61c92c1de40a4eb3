"""Folding events into whole replies, and the best of several."""

from typing import Literal

from provider_core.text.events import ChoiceResult, Finished, PromptEcho, TextDelta, fold, pick_best
from provider_core.types import TokenLogprobs


def choice(index: int, *logprobs: float, reason: Literal["stop", "error"] = "stop") -> ChoiceResult:
    """A finished choice with these log probabilities."""
    entries = tuple(TokenLogprobs(i, logprob) for i, logprob in enumerate(logprobs))
    return fold([TextDelta(index, f"#{index}", entries), Finished(index, reason, "")])[0]


def test_interleaved_choices_fold_by_index() -> None:
    """In the order of their indexes, whatever the order of their events."""
    entries = (TokenLogprobs(1, -1.0), TokenLogprobs(2, -2.0))
    results = fold(
        [
            TextDelta(1, "b"),
            PromptEcho(0, entries),
            TextDelta(0, "a", entries[:1]),
            Finished(1, "length", "length"),
            TextDelta(0, "c", entries[1:]),
            Finished(0, "stop", "eos"),
        ]
    )
    assert results == [
        ChoiceResult(0, "ac", "stop", "eos", list(entries), entries),
        ChoiceResult(1, "b", "length", "length"),
    ]


def test_the_best_are_those_with_the_highest_mean() -> None:
    """Not the highest sum, which favours short ones; numbered anew, best first."""
    results = [choice(0, -3.0), choice(1, -1.0, -1.0, -1.0, -1.0), choice(2, -2.0), choice(3)]
    best = pick_best(results, best_of=4, n=2)
    assert [(result.index, result.text) for result in best] == [(0, "#1"), (1, "#2")]


def test_the_best_are_picked_per_prompt() -> None:
    """Two prompts of two candidates."""
    results = [choice(0, -3.0), choice(1, -1.0), choice(2, -0.5), choice(3, -9.0)]
    best = pick_best(results, best_of=2, n=1)
    assert [(result.index, result.text) for result in best] == [(0, "#1"), (1, "#2")]


def test_a_failed_candidate_is_the_worst() -> None:
    """Whatever its tokens were worth."""
    results = [choice(0, -0.1, reason="error"), choice(1, -9.0)]
    assert [result.text for result in pick_best(results, best_of=2, n=1)] == ["#1"]
