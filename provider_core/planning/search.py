"""The fewest replicas that are ready from the start with which a latency is kept."""

from collections.abc import Callable
from dataclasses import dataclass

from provider_core.planning.forecast import Forecast


@dataclass(frozen=True, slots=True)
class Search:
    """What was tried.

    Attributes:
        chosen: The first that is good; if none is, the one with the most replicas.
        tried: All of them, by their number of replicas.
        is_met: Whether the chosen one is good.
    """

    chosen: Forecast
    tried: tuple[Forecast, ...]
    is_met: bool


def fewest_replicas(
    simulate: Callable[[int], Forecast],
    is_good: Callable[[Forecast], bool],
    *,
    least: int,
    most: int,
) -> Search:
    """Double the number until it is enough, then halve what lies between.

    Args:
        simulate: With so many replicas at least.
        is_good: Whether a forecast is; more replicas never make it worse.
        least: First number to try.
        most: Last number to try.
    """
    tried = {least: simulate(least)}
    enough, too_few = least, least - 1
    while not is_good(tried[enough]):
        if enough == most:
            return Search(tried[most], _by_number(tried), is_met=False)
        too_few, enough = enough, min(max(1, 2 * enough), most)
        tried[enough] = simulate(enough)
    while enough - too_few > 1:
        middle = (enough + too_few) // 2
        tried[middle] = simulate(middle)
        if is_good(tried[middle]):
            enough = middle
        else:
            too_few = middle
    return Search(tried[enough], _by_number(tried), is_met=True)


def _by_number(tried: dict[int, Forecast]) -> tuple[Forecast, ...]:
    return tuple(tried[number] for number in sorted(tried))
