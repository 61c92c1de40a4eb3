"""Which beginnings of prompts a runner's block store holds. Numbers only; no tensor, no runner.

A prompt is cut into blocks of a few tokens. A block's key is a hash over its tokens and the key of
the block before it, so that equal keys mean equal beginnings; the chain starts at the request's
salt, so that requests with different salts share nothing and cannot learn by timing what others
sent. Only what prefill computed is stored: a decode rounds otherwise (ADR 0004), and with a hit
the text must be the same to the last bit.
"""

import secrets
from collections import OrderedDict
from collections.abc import Sequence
from hashlib import blake2b

import numpy as np

_KEY_BYTES = 32  # no two beginnings share one, whatever a client sends


class PrefixCache:
    """The keys of all stored blocks, in order of use.

    The chain of a prompt is touched from its end to its beginning, so a block is always used later
    than every block behind it, and the least recently used block has none behind it: dropping it
    leaves whole beginnings.

    Args:
        num_blocks: How many the store holds.
        block_size: Tokens of a block.
    """

    def __init__(self, *, num_blocks: int, block_size: int) -> None:
        self.block_size = block_size
        self._secret = secrets.token_bytes(_KEY_BYTES)
        self._blocks: OrderedDict[bytes, int] = OrderedDict()  # key to id, last used last
        self._parents: dict[bytes, bytes | None] = {}  # key to that of the block before
        self._free = list(range(num_blocks))[::-1]

    def __len__(self) -> int:
        return len(self._blocks)

    def keys(self, token_ids: Sequence[int], salt: str) -> list[bytes]:
        """The key of each full block of a prompt, first to last; none once it is switched off."""
        if not (self._blocks or self._free):
            return []
        text = np.array(token_ids, dtype=np.int64).tobytes()
        size = 8 * self.block_size
        key = blake2b(salt.encode(), key=self._secret, digest_size=_KEY_BYTES).digest()
        keys = []
        for start in range(0, len(text) - size + 1, size):
            block = blake2b(key, key=self._secret, digest_size=_KEY_BYTES)
            block.update(text[start : start + size])
            keys.append(key := block.digest())
        return keys

    def count(self, keys: Sequence[bytes]) -> int:
        """How many blocks of a prompt are stored, from its first one on."""
        return next((i for i, key in enumerate(keys) if key not in self._blocks), len(keys))

    def find(self, keys: Sequence[bytes]) -> list[int]:
        """The ids of the longest stored beginning's blocks, which count as used now."""
        keys = keys[: self.count(keys)]
        self._touch(keys)
        return [self._blocks[key] for key in keys]

    def add(self, keys: Sequence[bytes]) -> tuple[int, list[int]]:
        """Make room for the blocks of a prompt that are not stored yet, as far as all fit.

        Returns:
            The index of the first new block in the prompt, and the ids where to store it and those
            behind it. They count as stored: `discard` them if that fails.
        """
        keys = keys[: len(self._blocks) + len(self._free)]
        num_stored = len(self.find(keys))
        new = keys[num_stored:]
        for parent, key in zip([None, *keys][num_stored:], new, strict=False):
            if not self._free:
                self._drop(next(iter(self._blocks)))
            self._blocks[key] = self._free.pop()
            self._parents[key] = parent
        ids = [self._blocks[key] for key in new]
        self._touch(keys)
        return num_stored, ids

    def discard(self, keys: Sequence[bytes]) -> None:
        """Forget blocks that cannot be trusted, and those behind them, whose past they are."""
        gone = set(keys) & self._blocks.keys()
        if not gone:
            return
        for key in list(reversed(self._blocks)):  # each before those behind it
            if key in gone or self._parents[key] in gone:
                gone.add(key)
                self._drop(key)

    def switch_off(self) -> None:
        """Hold nothing, from now on."""
        self._blocks.clear()
        self._parents.clear()
        self._free.clear()

    def _drop(self, key: bytes) -> None:
        self._free.append(self._blocks.pop(key))
        del self._parents[key]

    def _touch(self, keys: Sequence[bytes]) -> None:
        for key in reversed(keys):
            self._blocks.move_to_end(key)
