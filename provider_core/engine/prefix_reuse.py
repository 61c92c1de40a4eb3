"""Between the prefix cache, which knows numbers, and a runner that stores blocks."""

from collections.abc import Sequence

from provider_core.engine.prefix_cache import PrefixCache
from provider_core.interfaces import BlockStore, ModelRunner


def make_prefix_cache(runner: ModelRunner) -> PrefixCache | None:
    """A cache for what the runner can store, or `None` if it stores nothing."""
    info = runner.info
    if not info.num_cache_blocks or not isinstance(runner, BlockStore):
        return None
    return PrefixCache(num_blocks=info.num_cache_blocks, block_size=info.cache_block_size)


def load_prefix(runner: ModelRunner, slot: int, block_ids: Sequence[int]) -> None:
    """Fill the beginning of a slot from stored blocks, if there are any.

    Raises:
        Exception: Whatever the runner raises.
    """
    if block_ids and isinstance(runner, BlockStore):
        runner.load_blocks(slot, block_ids)


def save_prefix(
    runner: ModelRunner, cache: PrefixCache, slot: int, block_keys: Sequence[bytes]
) -> None:
    """Store the blocks of a prompt that prefill has computed and that are not stored yet.

    Raises:
        Exception: Whatever the runner raises; then they do not count as stored.
    """
    first, block_ids = cache.add(block_keys)
    if not block_ids or not isinstance(runner, BlockStore):
        return
    try:
        runner.save_blocks(slot, first * cache.block_size, block_ids)
    except Exception:
        cache.discard(block_keys[first:])
        raise
