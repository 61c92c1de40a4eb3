"""The two gates of a request: one before its body is read, one when its cost is known."""

import math
import random
from collections.abc import Iterable

from provider_core.errors import Overloaded
from provider_core.interfaces import EngineLoad
from provider_core.settings import LimitSettings

_JITTER = 0.25
_READING_S = 0.05  # of prefill: less says little about the next
_HALF_LIFE_S = 5.0  # of prefill, after which a reading counts half


def retry_after(wait_s: float) -> float:
    """A `Retry-After` for a predicted wait: 1 to 60 s with jitter, so that clients spread."""
    return min(60.0, max(1.0, wait_s)) * random.uniform(1 - _JITTER, 1 + _JITTER)  # noqa: S311


class PrefillRate:
    """Prompt tokens per second that one engine has shown lately, while it worked on prompts.

    They include those that came from the prefix cache, as the queue's do that they are held to.
    Old readings fade by the time spent on prefill, so that a reading weighs what it lasted: small
    chunks between decodes are slow, and one of them must not speak for a whole queue.
    """

    def __init__(self) -> None:
        self._num_tokens = 0.0  # both fading
        self._seconds = 0.0
        self._last_tokens = 0
        self._last_s = 0.0

    @property
    def tokens_per_s(self) -> float:
        """The rate, 0 while unknown."""
        return self._num_tokens / self._seconds if self._seconds >= _READING_S else 0.0

    def observe(self, num_prompt_tokens: int, prefill_s: float) -> None:
        """Take a reading of the engine's counters.

        Args:
            num_prompt_tokens: Computed and cached, since the engine's start.
            prefill_s: Spent on them.
        """
        elapsed_s = prefill_s - self._last_s
        kept = 0.5 ** (elapsed_s / _HALF_LIFE_S)
        self._num_tokens = self._num_tokens * kept + num_prompt_tokens - self._last_tokens
        self._seconds = self._seconds * kept + elapsed_s
        self._last_tokens, self._last_s = num_prompt_tokens, prefill_s


def check_queue(
    load: EngineLoad,
    limits: LimitSettings,
    *,
    num_sequences: int = 1,
    num_prompt_tokens: int = 0,
    prefill_tokens_per_s: float = 0.0,
    time_left_s: float = math.inf,
) -> None:
    """Admit only what can be served soon: `running + waiting < slots + queue`.

    Args:
        load: Of the engine that would serve it.
        limits: `queue_factor` and `queue_wait_s`.
        num_sequences: The request's choices.
        num_prompt_tokens: The request's own, 0 while unknown.
        prefill_tokens_per_s: Measured; 0 skips the prediction.
        time_left_s: Until the request's own deadline.

    Raises:
        Overloaded: The queue is full, or the predicted wait is over `queue_wait_s` or the deadline.
    """
    room = load.num_slots + int(load.num_slots * limits.queue_factor)
    busy = load.num_running + load.num_waiting
    wait_s = 0.0
    if prefill_tokens_per_s > 0:
        wait_s = (load.num_waiting_prompt_tokens + num_prompt_tokens) / prefill_tokens_per_s
    # A request of several choices may overfill an idle engine's queue, never a busy one's.
    if busy >= room or (load.num_waiting and busy + num_sequences > room):
        raise Overloaded(
            f"all {load.num_slots} slots and the queue are taken; try again later",
            retry_after_s=retry_after(wait_s),
        )
    patience_s = min(limits.queue_wait_s, time_left_s)
    if load.num_waiting and wait_s > patience_s:
        raise Overloaded(
            f"the predicted wait is over {patience_s:.3g} s; try again later",
            retry_after_s=retry_after(wait_s),
        )


def check_any_room(loads: Iterable[EngineLoad], limits: LimitSettings) -> None:
    """The first gate: refuse when no engine at all has room.

    Raises:
        Overloaded: All are full.
    """
    refusal: Overloaded | None = None
    for load in loads:
        try:
            check_queue(load, limits)
        except Overloaded as exc:
            refusal = exc
        else:
            return
    if refusal is not None:
        raise refusal
