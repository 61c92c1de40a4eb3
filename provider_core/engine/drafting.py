"""How many ids to draft for one sequence: what acceptance so far says, against what it costs."""

from collections.abc import Sequence
from typing import NamedTuple

from provider_core.engine.prompt_lookup import PromptLookup

MAX_DRAFT = 15
"""Most ids of one draft. With the id before them they make a call of 16 positions."""

_PRIOR = {3: 0.85, 2: 0.7}  # chance that a drafted id is right, by size of the gram, before any was
_MEMORY = 0.85  # weight of the past at each further id that was judged
_RELAX = 0.01  # how far towards the prior a chance goes each time it was too low to try


class Draft(NamedTuple):
    """Ids that may follow, and what trying them is expected to bring.

    Attributes:
        token_ids: At least one.
        gram_size: Of the ids by which they were found.
        num_expected: Tokens that one call is expected to make, the one after the draft included.
        cost: Of that call, in decodes of one row.
    """

    token_ids: list[int]
    gram_size: int
    num_expected: float
    cost: float


class Drafter:
    """Drafts for one sequence.

    Args:
        prompt_token_ids: Of the sequence.
    """

    __slots__ = ("_chances", "_lookup", "_num_prompt_tokens")

    def __init__(self, prompt_token_ids: Sequence[int]) -> None:
        self._lookup = PromptLookup(prompt_token_ids)
        self._num_prompt_tokens = len(prompt_token_ids)
        self._chances = dict(_PRIOR)

    def draft(
        self, generated_ids: Sequence[int], *, cost_per_token: float, most: int
    ) -> Draft | None:
        """The draft that makes most tokens for its cost; `None` if the text's end is new.

        Args:
            generated_ids: All so far; those that the last call did not have are indexed now.
            cost_per_token: Of one more position in a call, in decodes of one row.
            most: Ids that may be drafted, at least 1.
        """
        lookup = self._lookup
        lookup.extend(generated_ids[len(lookup) - self._num_prompt_tokens :])
        found = lookup.find()
        if found is None:
            return None
        size, position = found
        most = min(most, MAX_DRAFT)
        length, expected = best_length(self._chances[size], cost_per_token, most)
        token_ids = lookup.draft(position, length)
        return Draft(token_ids, size, expected, 1 + cost_per_token * length)

    def note(self, draft: Draft, num_accepted: int) -> None:
        """Take how many of a draft's ids were right: those, and the one after them was not.

        One that was unclear counts as not right: the call brought no more than if it had been.
        """
        size, num_drafted = draft.gram_size, len(draft.token_ids)
        num_judged = min(num_accepted + 1, num_drafted)
        past = _MEMORY**num_judged
        self._chances[size] = past * self._chances[size] + (1 - past) * num_accepted / num_judged

    def relax(self, draft: Draft) -> None:
        """Note that a draft was not worth trying. In time one will be again."""
        size = draft.gram_size
        self._chances[size] += _RELAX * (_PRIOR[size] - self._chances[size])


def best_length(chance: float, cost_per_token: float, most: int) -> tuple[int, float]:
    """The length of draft that makes most tokens for its cost.

    If each id is right with probability p, independently, a draft of k makes
    1 + p + ... + p**k tokens (Leviathan et al., "Fast Inference from Transformers via Speculative
    Decoding", ICML 2023, arXiv:2211.17192, equation 1). A call costs 1 + c * k. Their quotient
    has one peak.

    Args:
        chance: p.
        cost_per_token: c.
        most: Longest draft, at least 1.

    Returns:
        The length, from 1, and the expected number of tokens.
    """
    length, power = 1, chance
    expected = 1 + chance
    while length < most:
        power *= chance
        if power * (1 + cost_per_token * length) <= expected * cost_per_token:
            break
        length += 1
        expected += power
    return length, expected
