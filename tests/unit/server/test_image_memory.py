"""Memory of decoded images: nobody gets more than there is, and none of it is lost."""

import asyncio

import pytest

from provider_core.errors import Overloaded
from provider_core.server.image_memory import ImageMemory


async def until_waiting() -> None:
    """Let whoever was started come to its wait."""
    for _ in range(5):
        await asyncio.sleep(0)


async def test_room_is_given_in_the_order_of_asking() -> None:
    """A small request does not pass a large one, which would wait for ever."""
    memory = ImageMemory(10, wait_s=60)
    given: list[int] = []

    async def ask(num_bytes: int) -> None:
        await memory.take(num_bytes)
        given.append(num_bytes)

    async with asyncio.TaskGroup() as group:
        for num_bytes in (6, 8, 1):
            group.create_task(ask(num_bytes))
        await until_waiting()
        assert given == [6]
        memory.give_back(3)
        await until_waiting()
        assert given == [6]
        memory.give_back(3)
        await until_waiting()
        assert given == [6, 8, 1]


async def test_who_waits_in_vain_is_told_to_come_again() -> None:
    """Nothing is taken then; the next one has all that is given back."""
    memory = ImageMemory(10, wait_s=0.001)
    await memory.take(4)
    with pytest.raises(Overloaded) as caught:
        await memory.take(7)
    assert caught.value.retry_after_s is not None
    await memory.take(6)
    memory.give_back(10)
    await memory.take(10)


@pytest.mark.parametrize("leaving", [0, 1])
async def test_who_leaves_the_line_holds_up_nobody(leaving: int) -> None:
    """Whether it is the first one in it or another one, and also while it gets its room."""
    memory = ImageMemory(10, wait_s=60)
    await memory.take(10)
    line = [asyncio.create_task(memory.take(num_bytes)) for num_bytes in (8, 10)]
    await until_waiting()
    memory.give_back(10)
    line[leaving].cancel()
    if leaving == 1:
        await line[0]
        memory.give_back(8)
    else:
        await line[1]
        memory.give_back(10)
    await memory.take(10)
    await asyncio.gather(*line, return_exceptions=True)
    assert line[leaving].cancelled()
