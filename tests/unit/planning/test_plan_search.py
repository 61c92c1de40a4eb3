"""The fewest replicas that are good enough."""

from dataclasses import replace

import pytest

from provider_core.planning.fleet import Scaling
from provider_core.planning.forecast import Forecast, Terms, forecast
from provider_core.planning.replica import ReplicaSpec
from provider_core.planning.search import fewest_replicas
from tests.unit.planning.test_plan_costs import TRUE

EMPTY = forecast(
    [],
    ReplicaSpec(costs=TRUE[0], slots=1),
    Scaling(min_replicas=0, max_replicas=100, target_ongoing=1),
    Terms(price_per_hour=1),
)


def with_replicas(number: int) -> Forecast:
    """A forecast that says so."""
    return replace(EMPTY, scaling=replace(EMPTY.scaling, min_replicas=number))


@pytest.mark.parametrize("enough", [0, 1, 2, 3, 7, 8, 37, 100])
def test_it_is_the_fewest(enough: int) -> None:
    """Found in some tries, not in all of them."""
    search = fewest_replicas(
        with_replicas, lambda found: found.scaling.min_replicas >= enough, least=0, most=100
    )

    numbers = [each.scaling.min_replicas for each in search.tried]
    assert search.is_met
    assert search.chosen.scaling.min_replicas == enough
    assert numbers == sorted(set(numbers))
    assert len(numbers) <= 15


def test_not_even_the_most_may_be_enough() -> None:
    """Then the most is what is told."""
    search = fewest_replicas(with_replicas, lambda _: False, least=2, most=5)

    assert not search.is_met
    assert [each.scaling.min_replicas for each in search.tried] == [2, 4, 5]
    assert search.chosen.scaling.min_replicas == 5
