"""Clocks made of other clocks."""

from provider_core.clocks import SteadyClock
from tests.unit.billing.conftest import HandClock


def test_a_steady_clock_is_never_ahead_of_what_passed_nor_of_the_clock() -> None:
    """It goes on with time, not with who sets the clock."""
    hand = HandClock(wall_s=1000.0, mono_s=5.0)
    steady = SteadyClock(hand)
    hand.advance(7.0)
    assert (steady.time(), steady.monotonic()) == (1007.0, 12.0)
    hand.wall_s += 3000.0
    assert steady.time() == 1007.0
    hand.wall_s -= 3500.0
    assert steady.time() == 507.0
