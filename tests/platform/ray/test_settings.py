"""What a provider may set, and what not."""

from typing import Any

import pytest

from provider_core import ConfigurationError
from provider_ray.settings import read_settings


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"min_replicas": 3, "max_replicas": 2},
            "MAX_REPLICAS: less than PROVIDER_RAY_MIN_REPLICAS",
        ),
        ({"min_replicas": 0}, "MAX_REPLICAS: say how many"),
        ({"num_gpus": "many"}, "PROVIDER_RAY_NUM_GPUS: "),
        ({"replicas": 2}, "PROVIDER_RAY_REPLICAS: extra"),
    ],
)
def test_wrong_settings_are_named(arguments: dict[str, Any], message: str) -> None:
    """Before anything starts."""
    with pytest.raises(ConfigurationError, match=message):
        read_settings(**arguments)
