"""How a router counts what replicas have."""

import asyncio

from provider_ray.loads import Loads


def routing() -> asyncio.Future[str]:
    """Of a request that waits to be sent."""
    return asyncio.get_running_loop().create_future()


async def test_a_request_counts_from_its_choice_to_its_end() -> None:
    """Once, though it is chosen for first, and sent then."""
    loads: Loads[str] = Loads()
    chosen = routing()
    loads.note_choice(chosen, "one")
    assert loads["one"] == 1

    chosen.set_result("one")
    loads.note_start("one")
    await asyncio.sleep(0)
    assert loads["one"] == 1
    loads.note_end("one")
    assert loads["one"] == 0


async def test_a_request_counts_where_it_is_sent() -> None:
    """Though another replica was the first choice."""
    loads: Loads[str] = Loads()
    chosen = routing()
    loads.note_choice(chosen, "full")
    loads.note_choice(chosen, "first")
    assert (loads["full"], loads["first"]) == (0, 1)

    chosen.set_result("second")
    loads.note_start("second")
    await asyncio.sleep(0)
    assert (loads["first"], loads["second"]) == (0, 1)


async def test_a_request_that_is_given_up_gives_its_count_back() -> None:
    """Before it was sent; and that is noticed once."""
    loads: Loads[str] = Loads()
    one, other = routing(), routing()
    loads.note_choice(one, "a")
    loads.note_choice(other, "a")
    one.cancel()
    await asyncio.sleep(0)
    assert loads["a"] == 1
    loads.forget_choice(one)
    assert loads["a"] == 1


def test_an_end_without_a_start_is_no_credit() -> None:
    """Ray tells of requests that it could not send, too."""
    loads: Loads[str] = Loads()
    loads.note_end("a")
    loads.note_start("a")
    assert loads["a"] == 1
