"""Documents for the monitor: the schema, and the rules that only prose has."""

from decimal import Decimal
from typing import Any

import pytest

from provider_core.conformance.monitor_rules import (
    base_prices,
    check_legacy,
    check_monitor,
    flat_prices,
)
from provider_core.conformance.verdict import Failed
from provider_core.dialects.openrouter.monitor import ListedBy, legacy_document, model_document
from provider_core.prices import Prices
from provider_core.settings import ProviderSettings
from provider_core.types import ModelSpec

SPEC = ModelSpec(
    id="a/b",
    source="x",
    created=1,
    max_model_len=4096,
    prices=Prices(prompt=Decimal("0.000001"), completion=Decimal("0.000002")),
)
BY = ListedBy(provider=ProviderSettings())


def model(**fields: Any) -> dict[str, Any]:
    """A valid document of one model, with other fields."""
    return {**model_document(SPEC, BY), **fields}


def priced(*entries: dict[str, Any]) -> dict[str, Any]:
    """A document whose model has other prices of its input."""
    text = model()["input_modalities"][0]
    return model(input_modalities=[text | {"pricing": list(entries)}])


PRICE = {"type": "prompt", "unit": "token", "cost_usd": "0.000001"}
BROKEN: dict[str, tuple[dict[str, Any], str]] = {
    "extra": (model(object="model"), "['data'][0]"),
    "version": (model(schema_version="2.3"), "['schema_version']"),
    "exponent": (priced(PRICE | {"cost_usd": "1e-6"}), "['input_modalities'][0]"),
    "twice": (priced(PRICE, PRICE), "one price is listed twice"),
    "zero": (priced(PRICE | {"cost_usd": "0"}), "price of 0 is listed for prompt"),
    "minutes": (priced(PRICE, PRICE | {"utc_start": 1275, "utc_end": 1300}), "beyond 59"),
    "empty_window": (priced(PRICE, PRICE | {"utc_start": 1200, "utc_end": 1200}), "where it star"),
    "half_hour": (model(deprecation_date="2027-01-01T12:30:00Z"), "not a full hour"),
    "capacity": (model(capacity=model()["capacity"] * 2), "one capacity is listed twice"),
}


def test_our_own_document_is_valid() -> None:
    """In both forms; and its prices are those of the specification."""
    check_monitor({"data": [model()]})
    check_legacy({"data": [legacy_document(SPEC, BY)]})
    prices = {"prompt": Decimal("0.000001"), "completion": Decimal("0.000002")}
    assert base_prices(model()) == prices
    assert flat_prices(legacy_document(SPEC, BY)["pricing"]) == prices


@pytest.mark.parametrize("name", BROKEN)
def test_broken_documents_are_named(name: str) -> None:
    """By the place in the document, or by the rule."""
    document, reason = BROKEN[name]

    with pytest.raises(Failed) as caught:
        check_monitor({"data": [document]})
    assert reason in caught.value.reason


def test_two_models_have_two_ids() -> None:
    """The id is what requests name."""
    with pytest.raises(Failed, match="two models have one id"):
        check_monitor({"data": [model(), model()]})


def test_broken_legacy_documents_are_named() -> None:
    """A price that is a number is not exact."""
    document = legacy_document(SPEC, BY)
    bad: dict[str, dict[str, Any]] = {
        "max_output_length of a/b is None": {"max_output_length": None},
        "price of prompt is 1e-06": {"pricing": {"prompt": 1e-6}},
        "counts as 0": {"discount_to_user": 1},
    }
    for reason, fields in bad.items():
        with pytest.raises(Failed, match=reason):
            check_legacy({"data": [document | fields]})
