"""How many prompt tokens a step may compute, so that running sequences keep their pace."""

MIN_TOKENS = 32
"""Prompts advance by at least so much in a step, however slow the machine.

A call reads all weights whatever it computes: below some dozens of tokens the prompt hardly costs
less, and where a decode alone takes longer than the target the queue would grow for nothing.
"""

_TELLING_TOKENS = 16  # a call of fewer says what a call costs, and not what a token does
_GRAIN = 16  # tokens: runners keep what they prepared for a size of chunk, so let there be few

_HEADROOM = 0.9  # of the target: what is predicted is a mean, what is wanted is a percentile
_MEMORY = 0.8  # weight of the past at each new measurement: about the last five count


class StepBudget:
    """Cuts prefill to what fits beside a decode between two tokens of the running sequences.

    A step is one decode and, after it or in one call with it, prefill; its length is the
    inter-token latency of every row that decodes. Both costs are measured as they occur, and old
    measurements fade: a decode costs more the more rows it has, a prompt token the later it stands.

    Args:
        max_tokens: Most prompt tokens in one step, and what a step may have when nothing decodes.
            At least 3, so that any prompt can be cut without leaving a single token.
        target_itl_s: Inter-token latency to keep, in seconds.
    """

    def __init__(self, *, max_tokens: int, target_itl_s: float) -> None:
        self.max_tokens = max_tokens
        self._room_s = target_itl_s * _HEADROOM
        self._decode_s = 0.0  # of one decode
        self._prefill_s = 0.0  # of `_prefill_tokens`, both fading sums
        self._prefill_tokens = 0.0

    def num_tokens(self, *, is_decoding: bool) -> int:
        """Prompt tokens for one step, beside a decode or without one."""
        if not is_decoding or not self._prefill_s:
            return self.max_tokens
        left_s = self._room_s - self._decode_s
        fitting = int(left_s * self._prefill_tokens / self._prefill_s)
        return min(max(fitting - fitting % _GRAIN, MIN_TOKENS), self.max_tokens)

    def decode_share_s(self, num_tokens: int, duration_s: float) -> float:
        """How much of a call that decoded and computed a prompt went to the decode, in seconds.

        That is what a decode takes, but of what the prompt was expected to take at least half is
        the prompt's: both are estimates, and a token that seems to cost nothing would make the
        budget grow without bounds.

        Args:
            num_tokens: Of the prompt.
            duration_s: Of the call.
        """
        expected_s = 0.0
        if self._prefill_s:
            expected_s = num_tokens * self._prefill_s / self._prefill_tokens
        return max(0.0, min(self._decode_s, duration_s - expected_s / 2))

    def worth(self, duration_s: float) -> int:
        """How many prompt tokens could be computed in a time; 0 before any was measured."""
        if not self._prefill_s:
            return 0
        return int(duration_s * self._prefill_tokens / self._prefill_s)

    def note_decode(self, duration_s: float) -> None:
        """Take the time of one decode."""
        memory = _MEMORY if self._decode_s else 0.0
        self._decode_s = memory * self._decode_s + (1 - memory) * duration_s

    def note_prefill(self, num_tokens: int, duration_s: float) -> None:
        """Take the time of one prefill call. Long ones count more: theirs is the steady cost.

        Args:
            num_tokens: Computed. Once longer calls are known, short ones are ignored: many of
                them would make a token look dear.
            duration_s: Of computing them, without loading what was cached.
        """
        if num_tokens < _TELLING_TOKENS <= self._prefill_tokens:
            return
        self._prefill_s = _MEMORY * self._prefill_s + duration_s
        self._prefill_tokens = _MEMORY * self._prefill_tokens + num_tokens
