"""Letting a grammar read a text, and letting chance write one."""

import numpy as np

from provider_core.types import Grammar


def reads(grammar: Grammar, token_ids: list[int], *, end: int) -> bool:
    """Whether a text may be written id by id, each allowed by the mask, and may end there."""
    matcher = grammar.start()
    mask = np.zeros(1 + max([end, *token_ids]) // 32, dtype=np.int32)
    for token_id in token_ids:
        if matcher.is_finished:
            return False
        matcher.fill_bitmask(mask)
        if not is_allowed(mask, token_id):
            return False
        assert matcher.accept(token_id)
    if matcher.is_finished:
        return True
    matcher.fill_bitmask(mask)
    return is_allowed(mask, end)


def is_allowed(mask: np.ndarray[tuple[int], np.dtype[np.int32]], token_id: int) -> bool:
    """Whether an id's bit is set."""
    return bool(mask[token_id // 32] >> (token_id % 32) & 1)


def allowed_ids(mask: np.ndarray[tuple[int], np.dtype[np.int32]]) -> list[int]:
    """All ids whose bits are set."""
    bits = np.unpackbits(mask.view(np.uint8), bitorder="little")
    ids: list[int] = np.flatnonzero(bits).tolist()
    return ids


def write(
    grammar: Grammar, *, vocab_size: int, end: int, seed: int, max_tokens: int = 300
) -> list[int] | None:
    """A text of random ids, at each position any that is allowed; `None` if it got too long."""
    random = np.random.default_rng(seed)
    matcher = grammar.start()
    mask = np.zeros(-(-vocab_size // 32), dtype=np.int32)
    token_ids: list[int] = []
    while not matcher.is_finished:
        matcher.fill_bitmask(mask)
        token_id = int(random.choice(allowed_ids(mask)))
        if token_id == end:
            break
        if len(token_ids) == max_tokens:
            return None
        assert matcher.accept(token_id)
        token_ids.append(token_id)
    return token_ids
