"""Which replica a prompt goes to, by numbers alone."""

from provider_ray.placement import Placement

A, AB, ABC, X = b"a", b"ab", b"abc", b"x"


def test_a_prompt_that_nobody_knows_may_go_anywhere() -> None:
    """Then the least busy replica takes it."""
    placement: Placement[str] = Placement(busy_factor=2)
    placement.note([X], "one")

    assert not placement.choose([A, AB], {"one": 0, "two": 0})
    assert not placement.choose([], {"one": 0, "two": 0})


def test_the_longest_known_beginning_decides() -> None:
    """One that has more of a prompt is the better one."""
    placement: Placement[str] = Placement(busy_factor=2)
    placement.note([A], "one")
    placement.note([A, AB], "two")

    assert set(placement.choose([A, AB, ABC], {"one": 0, "two": 0})) == {"two"}
    assert set(placement.choose([A, X], {"one": 0, "two": 0})) == {"one", "two"}


def test_a_replica_that_is_gone_holds_nothing() -> None:
    """What is left of the beginning elsewhere counts."""
    placement: Placement[str] = Placement(busy_factor=2)
    placement.note([A], "one")
    placement.note([A, AB], "gone")

    assert set(placement.choose([A, AB], {"one": 0, "two": 0})) == {"one"}
    assert not placement.choose([A, AB], {})


def test_a_busy_replica_is_spared_up_to_the_factor() -> None:
    """Waiting would cost more than computing the beginning again."""
    placement: Placement[str] = Placement(busy_factor=2)
    placement.note([A], "one")

    assert set(placement.choose([A], {"one": 2, "two": 0})) == {"one"}
    assert not placement.choose([A], {"one": 3, "two": 0})
    assert set(placement.choose([A], {"one": 8, "two": 3})) == {"one"}
    placement.note([A], "two")  # where it went then
    assert set(placement.choose([A], {"one": 3, "two": 0})) == {"two"}


def test_the_ends_of_prompts_are_forgotten_first() -> None:
    """The memory is bounded, and what many share is what it keeps."""
    placement: Placement[str] = Placement(busy_factor=2, max_prefixes=3)
    placement.note([A, AB, ABC], "one")
    placement.note([A, X], "two")

    loads = {"one": 0, "two": 0}
    assert set(placement.choose([A, AB, ABC], loads)) == {"one"}  # by AB
    assert set(placement.choose([A], loads)) == {"one", "two"}
    placement.note([b"y"], "two")
    assert set(placement.choose([A, AB, ABC], loads)) == {"one", "two"}  # by A
