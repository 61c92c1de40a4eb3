"""Whole answers: the fold of a generation's events as one JSON object."""

from collections.abc import Iterable, Sequence
from typing import Any

from provider_core.dialects.google.answers import AnswerHead, Parts, candidate
from provider_core.text.events import Event, Finished, fold
from provider_core.types import Usage


def response(head: AnswerHead, events: Sequence[Event], usage: Usage) -> dict[str, Any]:
    """An answer, for `orjson.dumps`.

    Args:
        head: What was known of it.
        events: Of all candidates; none failed.
        usage: The final counts.
    """
    candidates = []
    for choice in fold(events):
        own = [event for event in events if event.index == choice.index]
        finished = next(event for event in own if isinstance(event, Finished))
        parts = Parts()
        value = candidate(choice.index, _joined(parts, own), **parts.end(finished))
        if head.decode_token is not None and choice.logprobs:
            value["avgLogprobs"] = choice.mean_logprob
        candidates.append(value | head.logprobs(choice.logprobs))
    return head.response(candidates, usage)


def _joined(parts: Parts, events: Iterable[Event]) -> list[dict[str, Any]]:
    """The parts of one candidate, neighbours of one kind joined."""
    joined: list[dict[str, Any]] = []
    texts: list[list[str]] = []
    for event in events:
        for part in parts.take(event):
            is_text = "text" in part
            if is_text and joined and joined[-1].keys() == part.keys():
                texts[-1].append(part["text"])
            else:
                joined.append(part)
                texts.append([part["text"]] if is_text else [])
    return [
        part | {"text": "".join(pieces)} if pieces else part
        for part, pieces in zip(joined, texts, strict=True)
    ]
