"""What a `[[model]]` table may say of prices and of its listing."""

from decimal import Decimal
from typing import Any

import pytest
from pydantic import ValidationError

from provider_core.catalog import specs_from_settings
from provider_core.model_settings import CapacitySettings, ModelSettings
from provider_core.plugins import PluginManager
from provider_core.settings import Settings
from provider_core.types import Capacity, ModelSpec


def table(**values: Any) -> ModelSettings:
    """A model's table."""
    return ModelSettings(**{"id": "a", "source": "/a", **values})


def spec_of(**values: Any) -> ModelSpec:
    """The spec of a model's table."""
    (spec,) = specs_from_settings(Settings(models=(table(**values),)), PluginManager())
    return spec


def test_a_tier_leaves_open_what_the_table_says() -> None:
    """Only what a tier names is different; the request price is the same in all."""
    tier = {"min_prompt_tokens": 1000, "prompt": "0.2"}
    prices = spec_of(pricing={"prompt": "0.1", "request": "0.5", "tiers": [tier]}).prices

    assert prices.tiers[0].min_prompt_tokens == 1000
    assert prices.tiers[0].prices.prompt == Decimal("0.2")
    assert prices.tiers[0].prices.request == Decimal("0.5")
    assert prices.tiers[0].prices.tiers == ()


def test_a_window_is_a_time_of_the_day() -> None:
    """It may span midnight."""
    window = {"utc_start": 2200, "utc_end": 600, "completion": "0.1"}
    (found,) = spec_of(pricing={"completion": "0.2", "windows": [window]}).prices.windows

    assert (found.utc_start, found.utc_end) == (2200, 600)
    assert found.prices.completion == Decimal("0.1")


def test_what_listings_say_is_in_the_spec() -> None:
    """Nothing is lost between the file and the listing."""
    spec = spec_of(
        hugging_face_id="acme/a",
        tokenizer="Qwen",
        openrouter_slug="acme/a",
        deprecation_date="2026-06-01T15:00:00Z",
        discount_to_user=0.25,
        is_free=False,
        capacity=CapacitySettings(requests_per_minute=60),
    )

    assert spec.hugging_face_id == "acme/a"
    assert spec.tokenizer == "Qwen"
    assert spec.openrouter_slug == "acme/a"
    assert spec.deprecation_date == "2026-06-01T15:00:00Z"
    assert spec.discount_to_user == 0.25
    assert spec.is_free is False
    assert spec.capacity == Capacity(requests_per_minute=60)


TIER = {"min_prompt_tokens": 10}
NIGHT = {"utc_start": 2200, "utc_end": 600, "prompt": "0.1"}


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"pricing": {"tiers": [TIER], "windows": [NIGHT]}}, "cannot be combined"),
        ({"pricing": {"tiers": [TIER, TIER]}}, "growing"),
        ({"pricing": {"tiers": [TIER, {"min_prompt_tokens": 9}]}}, "growing"),
        ({"pricing": {"tiers": [{"min_prompt_tokens": n} for n in (1, 2, 3)]}}, "at most 2"),
        ({"pricing": {"windows": [{"utc_start": 100, "utc_end": 100}]}}, "end where it starts"),
        ({"pricing": {"windows": [NIGHT, {**NIGHT, "utc_start": 500}]}}, "overlap"),
        (
            {"pricing": {"windows": [NIGHT, {"utc_start": 900, "utc_end": 1000}]}},
            "same prices",
        ),
        ({"pricing": {"windows": [{"utc_start": 1260, "utc_end": 1300}]}}, "hours times 100"),
        ({"deprecation_date": "2026-02-30"}, "day of the calendar"),
        ({"deprecation_date": "2026-06-01T15:30:00Z"}, "pattern"),
        ({"is_free": True, "pricing": {"prompt": "0.1"}}, "must have no price"),
        ({"discount_to_user": 1.0}, "less than 1"),
    ],
)
def test_what_no_listing_can_say_is_refused(values: dict[str, Any], problem: str) -> None:
    """A mistake is one at the start, not one that a marketplace finds."""
    with pytest.raises(ValidationError, match=problem):
        table(**values)
