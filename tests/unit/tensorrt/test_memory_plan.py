"""How many slots fit into a GPU, computed before any is allocated."""

from dataclasses import replace

import pytest

from provider_core import ConfigurationError
from provider_core.decoder_io import CacheTensor
from provider_tensorrt.device import MemoryInfo
from provider_tensorrt.loading import CACHE_DTYPES
from provider_tensorrt.memory_plan import MemoryPlan, slot_bytes

MIB = 2**20
PLAN = MemoryPlan(
    slot_bytes=100 * MIB,
    activation_bytes=200 * MIB,
    step_bytes=50 * MIB,
    reserve_bytes=250 * MIB,
    memory=MemoryInfo(free_bytes=1500 * MIB, total_bytes=2000 * MIB),
)


def test_as_many_slots_as_are_wanted() -> None:
    """If there is room for more."""
    assert PLAN.count_slots(4) == 4


def test_fewer_slots_where_memory_is_short() -> None:
    """What is left beside activations, inputs, outputs and the reserve, in whole slots."""
    assert PLAN.count_slots(64) == 10


def test_refuses_what_does_not_fit_with_every_number() -> None:
    """So that an operator sees what to change."""
    plan = replace(PLAN, memory=MemoryInfo(free_bytes=599 * MIB, total_bytes=2000 * MIB))
    with pytest.raises(ConfigurationError) as refusal:
        plan.count_slots(1)
    for number in (100, 200, 50, 250, 599, 2000):
        assert f"{number} MiB" in refusal.value.message


@pytest.mark.parametrize(
    ("wanted_mib", "num_slots", "expected"), [(64, 4, 16), (1000, 4, 150), (1000, 10, 0), (0, 4, 0)]
)
def test_blocks_take_what_slots_leave(wanted_mib: int, num_slots: int, expected: int) -> None:
    """In no more than is wanted, and never in the place of a slot."""
    assert PLAN.count_blocks(wanted_mib * MIB, 4 * MIB, num_slots) == expected


@pytest.mark.parametrize(("dtype", "size"), [("float32", 4), ("float16", 2), ("bfloat16", 2)])
def test_a_slot_holds_keys_and_values_of_all_layers(dtype: str, size: int) -> None:
    """Of every position it may have, in every dtype that is served."""
    assert dtype in CACHE_DTYPES
    caches = [CacheTensor(f"past.{i}", f"present.{i}", 2, 64) for i in range(4)]
    assert slot_bytes(caches, dtype, 1000) == 4 * 2 * 64 * 1000 * size
