"""The list of models: OpenAI's fields, limits, and prices as strings."""

from decimal import Decimal

from provider_core.dialects.openai import model_item, model_list
from provider_core.prices import Prices
from provider_core.types import ModelSpec

SPEC = ModelSpec(id="a/b", source="x", created=7, max_model_len=4096)


def test_an_item_has_openais_fields_and_the_limits() -> None:
    """What clients need without asking anything else."""
    assert model_item(SPEC) == {
        "id": "a/b",
        "object": "model",
        "created": 7,
        "owned_by": "provider-core",
        "name": "a/b",
        "description": "",
        "context_length": 4096,
        "max_model_len": 4096,
        "max_output_tokens": 4096,
        "pricing": {"prompt": "0", "completion": "0", "request": "0", "image": "0"},
    }


def test_what_is_known_is_shown() -> None:
    """Name, limit of output, precision."""
    spec = ModelSpec(
        id="a", source="x", name="A", max_model_len=10, max_output_tokens=5, quantization="int4"
    )
    item = model_item(spec)
    assert (item["name"], item["max_output_tokens"], item["quantization"]) == ("A", 5, "int4")


def test_prices_have_no_exponent() -> None:
    """Small prices are written out, exactly."""
    prices = Prices(
        prompt=Decimal("1E-7"), completion=Decimal("0.0000012"), input_cache_read=Decimal("1E-18")
    )
    pricing = model_item(ModelSpec(id="a", source="x", prices=prices))["pricing"]
    assert pricing["prompt"] == "0.0000001"
    assert pricing["completion"] == "0.0000012"
    assert pricing["input_cache_read"] == "0.000000000000000001"


def test_the_list_keeps_the_order() -> None:
    """The order of the configuration is the order of the list."""
    other = ModelSpec(id="c", source="x", is_ready=False)
    listed = model_list([SPEC, other])
    assert listed["object"] == "list"
    assert [item["id"] for item in listed["data"]] == ["a/b", "c"]
