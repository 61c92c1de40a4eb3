"""The list of models as OpenRouter's clients page, filter and sort it."""

from decimal import Decimal

import pytest

from provider_core.dialects.openrouter.models import model_count, model_object, model_page
from provider_core.errors import InvalidRequest
from provider_core.prices import Prices
from provider_core.types import ModelSpec


def spec(name: str, length: int, price: str, *, tools: bool = False) -> ModelSpec:
    """A model."""
    return ModelSpec(
        id=name,
        source="x",
        created=length,
        max_model_len=length,
        features=frozenset({"tools"}) if tools else frozenset(),
        prices=Prices(prompt=Decimal(price)),
    )


SPECS = [
    spec("acme/small", 1000, "2"),
    spec("acme/large", 9000, "3", tools=True),
    spec("other/x", 5000, "1"),
]


def ids(**query: str) -> list[str]:
    """What a query finds."""
    return [model["id"] for model in model_page(SPECS, query)["data"]]


def test_pages_join_to_the_whole_list() -> None:
    """`links.next` keeps the filters."""
    first = model_page(SPECS, {"limit": "2", "q": "c"})
    assert first["total_count"] == 2
    assert first["links"]["next"] is None

    page = model_page(SPECS, {"limit": "2"})
    assert page["links"]["next"] == "/api/v1/models?limit=2&offset=2"
    assert [m["id"] for m in page["data"]] + ids(limit="2", offset="2") == ids()
    assert model_page(SPECS, {"offset": "9"})["data"] == []


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ({"supported_parameters": "tools"}, ["acme/large"]),
        ({"supported_parameters": "temperature,seed"}, ["acme/small", "acme/large", "other/x"]),
        ({"supported_parameters": "tools,reasoning"}, []),
        ({"output_modalities": "embeddings"}, []),
        ({"output_modalities": "all"}, ["acme/small", "acme/large", "other/x"]),
        ({"input_modalities": "image,text"}, ["acme/small", "acme/large", "other/x"]),
        ({"context": "5000"}, ["acme/large", "other/x"]),
        ({"q": "ACME"}, ["acme/small", "acme/large"]),
        ({"sort": "pricing-low-to-high"}, ["other/x", "acme/small", "acme/large"]),
        ({"sort": "pricing-high-to-low"}, ["acme/large", "acme/small", "other/x"]),
        ({"sort": "context-high-to-low"}, ["acme/large", "other/x", "acme/small"]),
        ({"sort": "newest"}, ["acme/large", "other/x", "acme/small"]),
        ({"sort": "most-popular"}, ["acme/small", "acme/large", "other/x"]),
    ],
)
def test_filters_and_orders(query: dict[str, str], found: list[str]) -> None:
    """Those that a provider can answer; the others change nothing."""
    assert ids(**query) == found
    assert model_count(SPECS, query)["data"]["count"] == len(found)


@pytest.mark.parametrize(
    ("name", "value"),
    [("limit", "0"), ("limit", "1001"), ("offset", "-1"), ("offset", "x"), ("limit", "9" * 5000)],
)
def test_a_page_that_does_not_exist_is_refused(name: str, value: str) -> None:
    """By the name of the parameter."""
    with pytest.raises(InvalidRequest, match="must be an integer from") as refusal:
        model_page(SPECS, {name: value})
    assert refusal.value.param == name


def test_a_model_links_to_its_details() -> None:
    """Whatever its id holds."""
    assert model_object(spec("a/b?c", 1, "0"))["links"] == {
        "details": "/api/v1/models/a/b%3Fc/endpoints"
    }
