"""The documents that a marketplace lists models from: valid, complete, and true."""

import json
import re
from collections.abc import Iterator
from decimal import Decimal
from importlib.resources import files
from typing import Any

import jsonschema_rs
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from provider_core.billing.money import prices_at, prices_for
from provider_core.dialects.openrouter.monitor import (
    ListedBy,
    Place,
    legacy_list,
    model_document,
    monitor_list,
)
from provider_core.dialects.openrouter.parameters import ABOVE_ZERO, descriptors
from provider_core.prices import Prices, PriceTier, PriceWindow
from provider_core.settings import ProviderSettings
from provider_core.types import Capacity, ModelSpec
from tests.unit.dialects.openrouter_specs import listers, specs
from tests.unit.dialects.request_bodies import chat, refused_chat

SCHEMA = files("provider_core.conformance") / "data" / "openrouter_monitor_2_4.schema.json"
VALIDATOR = jsonschema_rs.validator_for(json.loads(SCHEMA.read_bytes()))
NOBODY = ListedBy(provider=ProviderSettings())
SPEC = ModelSpec(id="a/b", source="x", max_model_len=4096, max_num_seqs=8)
QUALIFIERS = ("type", "ttl_seconds", "implicit", "utc_start", "utc_end")


def spec_of(**values: Any) -> ModelSpec:
    """A model with some facts."""
    return ModelSpec(**{"id": "a/b", "source": "x", "max_model_len": 4096, **values})


def price_entries(document: dict[str, Any]) -> Iterator[list[dict[str, Any]]]:
    """Every list of prices of a document."""
    for owner in (document, *document["input_modalities"], *document["output_modalities"]):
        if "pricing" in owner:
            yield owner["pricing"]


@given(spec=specs, by=listers)
def test_every_model_is_valid_under_the_schema(spec: ModelSpec, by: ListedBy) -> None:
    """Whatever a configuration may say, as it leaves on the wire."""
    answer = json.loads(orjson.dumps(monitor_list([spec], by)))

    VALIDATOR.validate(answer)


@given(spec=specs, by=listers)
def test_the_rules_that_only_prose_has_hold(spec: ModelSpec, by: ListedBy) -> None:
    """No price twice, no price of what is not billed, whole windows, exact digits."""
    document = model_document(spec, by)
    for entries in price_entries(document):
        assert entries, "a modality without prices has no list"
        identities = [tuple(entry.get(name) for name in QUALIFIERS) for entry in entries]
        assert len(set(identities)) == len(identities)
        for entry in entries:
            assert re.fullmatch(r"\d+(\.\d+)?", entry["cost_usd"])
            for end in ("utc_start", "utc_end"):
                assert entry.get(end, 0) % 100 < 60
            assert entry.get("utc_start", -1) != entry.get("utc_end", -2)
    for entries in price_entries(document):
        for kind in {entry["type"] for entry in entries} - {"cached_prompt", "internal_reasoning"}:
            lines = [entry for entry in entries if entry["type"] == kind]
            costs = [line["cost_usd"] for line in lines]
            costs += [o["cost_usd"] for line in lines for o in line.get("overrides", ())]
            assert any(Decimal(cost) for cost in costs), "a price of 0 is not billed"
    if (moment := document.get("deprecation_date")) and "T" in moment:
        assert moment.endswith(":00:00Z")
    capacities = document["capacity"]
    assert len({(c["type"], c.get("per")) for c in capacities}) == len(capacities)


def listed_price(entries: list[dict[str, Any]], kind: str, tokens: int, clock: int) -> Decimal:
    """The price that a reader of the document expects."""
    base = Decimal(0)
    for entry in entries:
        if entry["type"] != kind:
            continue
        if "utc_start" not in entry:
            base = Decimal(entry["cost_usd"])
            for override in entry.get("overrides", ()):
                if tokens >= override["when"]["prompt_tokens"]["gte"]:
                    base = Decimal(override["cost_usd"])
    for entry in entries:
        if entry["type"] == kind and "utc_start" in entry:
            start, end = entry["utc_start"], entry["utc_end"]
            inside = start <= clock < end if start < end else clock >= start or clock < end
            if inside:
                return Decimal(entry["cost_usd"])
    return base


@given(
    spec=specs,
    tokens=st.sampled_from([1, 999, 1000, 10**7]) | st.integers(0, 10**6),
    clock=st.sampled_from([0, 129, 130, 559, 600, 1200, 2159, 2200, 2359]),
)
def test_what_is_listed_is_what_is_billed(spec: ModelSpec, tokens: int, clock: int) -> None:
    """At any time of the day and for any length, the document says the price of the bill."""
    unix_s = clock // 100 * 3600 + clock % 100 * 60 + 59
    _, billed = prices_for(prices_at(spec.prices, unix_s), tokens)
    document = model_document(spec, NOBODY)
    (text, *_) = document["input_modalities"]

    assert listed_price(text.get("pricing", []), "prompt", tokens, clock) == billed.prompt
    cached = listed_price(text.get("pricing", []), "cached_prompt", tokens, clock)
    if any(entry["type"] == "cached_prompt" for entry in text.get("pricing", [])):
        expected = billed.prompt if billed.input_cache_read is None else billed.input_cache_read
        assert cached == expected
    (output,) = document["output_modalities"]
    if output["type"] == "text":
        entries = output.get("pricing", [])
        assert listed_price(entries, "completion", tokens, clock) == billed.completion


def test_the_schema_refuses_what_openai_lists() -> None:
    """Unknown properties are errors there: the reason for a path of its own."""
    answer = monitor_list([SPEC], NOBODY)
    answer["data"][0]["object"] = "model"

    assert not VALIDATOR.is_valid(answer)


def test_a_plain_model_says_nothing_that_is_not_known() -> None:
    """No zeros, no empty lists, no policies."""
    document = model_document(SPEC, NOBODY)

    assert document.keys() == {
        "schema_version",
        "id",
        "name",
        "hugging_face_id",
        "quantization",
        "input_modalities",
        "output_modalities",
        "is_ready",
        "capacity",
    }
    assert document["capacity"] == [{"type": "concurrency", "unit": "request", "value": 8}]
    assert document["input_modalities"] == [
        {
            "type": "text",
            "supported_inputs": {"max_context_length": {"value": 4096, "unit": "token"}},
        }
    ]


def test_a_priced_model_lists_what_it_bills() -> None:
    """Tiers as overrides, a cached prompt as provider-initiated, no cache writes."""
    tier = PriceTier(
        min_prompt_tokens=200_001,
        prices=Prices(
            prompt=Decimal("4E-6"), completion=Decimal("0.00002"), request=Decimal("0.01")
        ),
    )
    prices = Prices(
        prompt=Decimal("2E-6"),
        completion=Decimal("0.00002"),
        input_cache_read=Decimal(0),
        input_cache_write=Decimal("0.1"),
        request=Decimal("0.01"),
        tiers=(tier,),
    )
    document = model_document(spec_of(prices=prices), NOBODY)

    assert document["pricing"] == [{"type": "request", "unit": "request", "cost_usd": "0.01"}]
    prompt, cached = document["input_modalities"][0]["pricing"]
    long = {"prompt_tokens": {"gte": 200_001}}
    assert prompt == {
        "type": "prompt",
        "unit": "token",
        "cost_usd": "0.000002",
        "overrides": [{"when": long, "cost_usd": "0.000004"}],
    }
    assert (cached["type"], cached["cost_usd"], cached["implicit"]) == ("cached_prompt", "0", True)
    assert document["output_modalities"][0]["pricing"] == [
        {"type": "completion", "unit": "token", "cost_usd": "0.00002"}
    ]


def test_a_window_is_an_entry_of_its_own() -> None:
    """Only where its price differs."""
    window = PriceWindow(
        utc_start=800, utc_end=1630, prices=Prices(prompt=Decimal(2), completion=Decimal(1))
    )
    prices = Prices(prompt=Decimal(1), completion=Decimal(1), windows=(window,))
    document = model_document(spec_of(prices=prices), NOBODY)

    assert document["input_modalities"][0]["pricing"] == [
        {"type": "prompt", "unit": "token", "cost_usd": "1"},
        {"type": "prompt", "unit": "token", "cost_usd": "2", "utc_start": 800, "utc_end": 1630},
    ]
    assert len(document["output_modalities"][0]["pricing"]) == 1


def test_parameters_are_those_of_the_model() -> None:
    """A model without tools does not list them, and its longest answer is the limit."""
    plain = model_document(spec_of(max_output_tokens=100), NOBODY)["output_modalities"][0]
    able = model_document(
        spec_of(features=frozenset({"tools", "structured_outputs", "logprobs", "reasoning"})),
        NOBODY,
    )["output_modalities"][0]

    assert plain["supported_parameters"]["max_tokens"]["max"] == 100
    assert plain["max_length"] == {"value": 100, "unit": "token"}
    assert plain["supported_parameters"].keys().isdisjoint({"tools", "reasoning", "logprobs"})
    assert able["supported_parameters"].keys() >= {"tools", "structured_outputs", "reasoning"}
    assert able["max_length"] == {"value": 4096, "unit": "token"}


@pytest.mark.parametrize(
    ("retention_days", "trains_on_prompts", "zdr"),
    [(0, False, True), (30, False, False), (0, True, False)],
)
def test_zero_data_retention_is_said_only_if_configured(
    retention_days: float,
    trains_on_prompts: bool,  # noqa: FBT001 - a parameter of the test
    zdr: bool,  # noqa: FBT001
) -> None:
    """And certifications beside it, by their usual names."""
    provider = ProviderSettings(
        retention_days=retention_days,
        trains_on_prompts=trains_on_prompts,
        certifications=("HIPAA",),
    )
    document = model_document(SPEC, ListedBy(provider=provider))

    assert document["compliance"] == {"zdr": zdr, "hipaa": True}


def test_the_older_form_says_the_same() -> None:
    """Flat, with a strict threshold and names of its own."""
    tier = PriceTier(min_prompt_tokens=200_001, prices=Prices(prompt=Decimal(2)))
    spec = spec_of(
        created=7,
        max_output_tokens=5,
        is_free=False,
        openrouter_slug="c/d",
        features=frozenset({"tools", "chat"}),
        capacity=Capacity(prompt_tokens_per_minute=9),
        prices=Prices(prompt=Decimal(1), tiers=(tier,)),
    )
    by = ListedBy(provider=ProviderSettings(), places=(Place(country="DE", region="eu"),))
    (document,) = legacy_list([spec], by)["data"]

    assert document["context_length"] == 4096
    assert document["max_output_length"] == 5
    assert document["supported_features"] == ["tools"]
    assert document["capacity_tpm"] == 9
    assert document["datacenters"] == [{"country_code": "DE"}]
    assert document["openrouter"] == {"slug": "c/d"}
    assert document["is_free"] is False
    (override,) = document["pricing"]["overrides"]
    assert override["min_prompt_tokens"] == 200_000
    assert override["prompt"] == "2"


@given(spec=specs, by=listers)
def test_the_older_form_stays_in_its_vocabulary(spec: ModelSpec, by: ListedBy) -> None:
    """Prices have no exponent, tiers and windows are not mixed."""
    (document,) = json.loads(orjson.dumps(legacy_list([spec], by)))["data"]
    pricing = document["pricing"]
    overrides = pricing.pop("overrides", [])

    assert all(re.fullmatch(r"\d+(\.\d+)?", price) for price in pricing.values())
    assert len({"utc_start" in override for override in overrides}) <= 1
    assert set(document["supported_features"]) <= {
        "tools",
        "json_mode",
        "structured_outputs",
        "logprobs",
        "web_search",
        "reasoning",
    }


def test_the_ends_of_ranges_are_taken_and_what_lies_beyond_is_not() -> None:
    """A client that keeps to the listing is never refused; 0 is in no range that begins above."""
    ranges = {
        name: descriptor
        for name, descriptor in descriptors(SPEC, "text").items()
        if descriptor["type"] == "range"
    }
    assert ranges.keys() >= {"temperature", "top_p", "min_p", "repetition_penalty"}
    for name, descriptor in ranges.items():
        low, high = descriptor["min"], descriptor["max"]
        for value in (low, high):
            chat(**{name: value})
        for value in (0 if low == ABOVE_ZERO else low - 0.1, high + 0.1):
            assert refused_chat(**{name: value}).param == name
