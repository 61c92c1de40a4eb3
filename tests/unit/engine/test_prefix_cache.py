"""Which blocks are stored, and which go first."""

from hypothesis import given
from hypothesis import strategies as st

from provider_core.engine.prefix_cache import PrefixCache


def _cache(num_blocks: int = 8, block_size: int = 4) -> PrefixCache:
    return PrefixCache(num_blocks=num_blocks, block_size=block_size)


def test_only_full_blocks_have_keys() -> None:
    """Eleven tokens are two blocks of four."""
    cache = _cache()
    assert [len(cache.keys(range(n), "")) for n in (0, 3, 4, 7, 8, 11)] == [0, 0, 1, 1, 2, 2]


def test_a_key_stands_for_everything_before_it() -> None:
    """Prompts share keys as far as they are equal, and none behind the first other token."""
    cache = _cache()
    a = cache.keys([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12], "")
    b = cache.keys([1, 2, 3, 4, 5, 6, 0, 8, 9, 10, 11, 12], "")
    assert a == cache.keys([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13], "")
    assert [x == y for x, y in zip(a, b, strict=True)] == [True, False, False]


def test_the_same_block_at_another_place_is_another_block() -> None:
    """Its keys and values hold its position."""
    first, second = _cache().keys([1, 2, 3, 4, 1, 2, 3, 4], "")
    assert first != second


def test_salts_and_caches_share_nothing() -> None:
    """Another tenant's key cannot be met, nor computed outside this process."""
    cache, tokens = _cache(), range(16)
    ours = set(cache.keys(tokens, "ours"))
    assert ours.isdisjoint(cache.keys(tokens, "theirs"))
    assert ours.isdisjoint(cache.keys(tokens, ""))
    assert ours.isdisjoint(_cache().keys(tokens, "ours"))


def test_what_was_added_is_found_as_far_as_it_goes() -> None:
    """In the order of the prompt; new blocks are those behind what was stored."""
    cache = _cache()
    short, long = cache.keys(range(8), ""), cache.keys(range(19), "")
    assert cache.find(long) == []
    first, ids = cache.add(short)
    assert (first, len(ids)) == (0, 2)
    assert cache.find(long) == ids
    first, more = cache.add(long)
    assert (first, len(more)) == (2, 2)
    assert cache.find(long) == ids + more
    assert cache.add(long) == (4, [])


def test_the_least_recently_used_beginning_loses_its_end_first() -> None:
    """So that what is left of it can still be found."""
    cache = _cache(num_blocks=5)
    old, new = cache.keys(range(12), ""), cache.keys(range(100, 112), "")
    _, ids = cache.add(old)
    cache.add(new)
    assert cache.find(old) == ids[:2]
    assert len(cache.find(new)) == 3


def test_use_keeps_a_beginning() -> None:
    """The other one goes."""
    cache = _cache(num_blocks=4)
    a, b, c = (cache.keys(range(i, i + 8), "") for i in (0, 100, 200))
    cache.add(a)
    cache.add(b)
    cache.find(a)
    cache.add(c)
    assert [len(cache.find(keys)) for keys in (a, b, c)] == [2, 0, 2]


def test_a_prompt_longer_than_the_store_keeps_its_beginning() -> None:
    """It does not push itself out."""
    cache = _cache(num_blocks=3)
    keys = cache.keys(range(40), "")
    first, ids = cache.add(keys)
    assert (first, sorted(ids)) == (0, [0, 1, 2])
    assert cache.find(keys) == ids
    assert cache.add(keys) == (3, [])


def test_discarded_blocks_are_not_found_and_can_be_used_again() -> None:
    """A store that could not be written holds nothing."""
    cache = _cache(num_blocks=2)
    keys = cache.keys(range(8), "")
    cache.add(keys)
    cache.discard(keys)
    assert (cache.find(keys), len(cache)) == ([], 0)
    assert len(cache.add(keys)[1]) == 2


@given(
    num_blocks=st.integers(1, 9),
    prompts=st.lists(
        st.tuples(st.sampled_from("ab"), st.lists(st.integers(0, 1), max_size=14), st.booleans()),
        max_size=40,
    ),
)
def test_whatever_comes_beginnings_stay_whole(
    num_blocks: int, prompts: list[tuple[str, list[int], bool]]
) -> None:
    """Every stored block's predecessors are stored, ids are unique, what is found was stored."""
    cache = _cache(num_blocks=num_blocks, block_size=2)
    content: dict[int, tuple[str, tuple[int, ...]]] = {}  # what was last written to each id
    chains = {}
    for salt, tokens, is_lookup in prompts:
        keys = cache.keys(tokens, salt)
        chains.update({key: keys[: i + 1] for i, key in enumerate(keys)})
        if is_lookup:
            for i, block_id in enumerate(cache.find(keys)):
                assert content[block_id] == (salt, tuple(tokens[: 2 * (i + 1)]))
            continue
        first, ids = cache.add(keys)
        for i, block_id in enumerate(ids, start=first):
            content[block_id] = (salt, tuple(tokens[: 2 * (i + 1)]))
        stored = set(cache._blocks)
        assert all(stored.issuperset(chains[key]) for key in stored)
        assert len(set(cache._blocks.values())) == len(cache) <= num_blocks
        assert len(cache.find(keys)) == min(len(keys), num_blocks)


def test_what_is_discarded_takes_along_what_was_built_on_it() -> None:
    """In whatever order they were used; other beginnings stay, and every block is found again."""
    cache = PrefixCache(num_blocks=8, block_size=1)
    left = cache.keys([1, 2, 3], "")
    right = cache.keys([1, 2, 4, 5], "")
    other = cache.keys([7, 8], "")
    for keys in (left, right, other):
        cache.add(keys)
    cache.find(left)
    cache.discard(right[1:2])
    assert [cache.count(keys) for keys in (left, right, other)] == [1, 1, 2]
    assert len(cache) == 3
    first, ids = cache.add(cache.keys([1, *range(20, 24)], ""))
    assert (first, len(set(ids))) == (1, 4)
    assert cache.count(other) == 2  # there was room


def test_a_cache_that_is_switched_off_holds_nothing() -> None:
    """Nor do keys that were made before."""
    cache = PrefixCache(num_blocks=8, block_size=1)
    keys = cache.keys([1, 2, 3], "")
    cache.add(keys)
    cache.switch_off()
    assert cache.keys([1, 2, 3], "") == []
    assert cache.add(keys) == (0, [])
    assert (cache.count(keys), len(cache)) == (0, 0)
