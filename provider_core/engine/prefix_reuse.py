"""Between the prefix cache, which knows numbers, and a runner that stores blocks.

Reuse only saves work: what fails here costs time and no request.
"""

from collections.abc import Sequence

import structlog

from provider_core.engine.prefix_cache import PrefixCache
from provider_core.errors import EngineDead
from provider_core.interfaces import BlockStore, ModelRunner

MAX_FAILURES = 3
"""After so many failed loads in a row, or saves, nothing is stored any more."""

log = structlog.get_logger()


class PrefixReuse:
    """Loads and stores beginnings of prompts, for as long as the runner can.

    Args:
        runner: It is asked nothing if it is no `BlockStore` or has no room for a block.

    Attributes:
        cache: What is stored; `None` for a runner that stores nothing.
    """

    def __init__(self, runner: ModelRunner) -> None:
        info = runner.info
        self.cache: PrefixCache | None = None
        self._num_failures = {"load": 0, "save": 0}  # in a row
        if info.num_cache_blocks and isinstance(runner, BlockStore):
            self._store: BlockStore = runner
            self.cache = PrefixCache(
                num_blocks=info.num_cache_blocks, block_size=info.cache_block_size
            )

    def load(self, slot: int, block_keys: Sequence[bytes], block_ids: Sequence[int]) -> bool:
        """Fill the beginning of a slot from stored blocks; `False` says that this failed.

        Args:
            slot: Of a prompt that has not begun.
            block_keys: Of the prompt.
            block_ids: Where its first blocks are stored; none to load is no failure.

        Raises:
            EngineDead: The runner said so.
        """
        if self.cache is None or not block_ids:
            return True
        try:
            self._store.load_blocks(slot, block_ids)
        except EngineDead:
            raise
        except Exception as error:  # noqa: BLE001 - a plugin may raise anything
            self.cache.discard(block_keys[: len(block_ids)])
            self._note_failure("load", error)
            return False
        self._num_failures["load"] = 0
        return True

    def save(self, slot: int, block_keys: Sequence[bytes]) -> None:
        """Store the blocks of a prompt that prefill has computed and that are not stored yet.

        Raises:
            EngineDead: The runner said so.
        """
        if self.cache is None:
            return
        first, block_ids = self.cache.add(block_keys)
        if not block_ids:
            return
        try:
            self._store.save_blocks(slot, first * self.cache.block_size, block_ids)
        except EngineDead:
            raise
        except Exception as error:  # noqa: BLE001 - a plugin may raise anything
            self.cache.discard(block_keys[first:])
            self._note_failure("save", error)
            return
        self._num_failures["save"] = 0

    def discard(self, block_keys: Sequence[bytes]) -> None:
        """Forget a prompt's blocks, which may be why it failed, and all that was built on them."""
        if self.cache is not None:
            self.cache.discard(block_keys)

    def _note_failure(self, call: str, error: Exception) -> None:
        self._num_failures[call] += 1
        if self.cache is not None and self._num_failures[call] == MAX_FAILURES:
            self.cache.switch_off()
            log.error("cache.disabled", call=call, num_failures=MAX_FAILURES, exc_info=error)
