"""OpenRouter's routing fields: read strictly, honoured where one provider can."""

import re
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provider_core.dialects.openrouter.routing import (
    _FIELDS,
    Preferences,
    check_preferences,
    check_variant,
    parse_routing,
    split_variant,
)
from provider_core.errors import InvalidRequest, NoEndpoints, UnsupportedParameter
from provider_core.prices import Prices, PriceTier, PriceWindow
from provider_core.settings import ProviderSettings
from provider_core.types import ModelSpec

NIGHT = PriceWindow(utc_start=0, utc_end=600, prices=Prices(prompt=Decimal("0.0000005")))
SPEC = ModelSpec(
    id="acme/m",
    source="x",
    quantization="int8",
    prices=Prices(prompt=Decimal("0.000001"), completion=Decimal("0.000002"), windows=(NIGHT,)),
)
NOON_S = 12 * 3600.0
US = ProviderSettings(slug="acme")


def preferences(**provider: Any) -> Preferences:
    """The preferences of a body."""
    found = parse_routing({"model": "m", "provider": provider}).preferences
    assert found is not None
    return found


def test_a_plain_request_names_one_model() -> None:
    """What is not there asks nothing."""
    routing = parse_routing({"model": "a", "messages": []})

    assert (routing.models, routing.preferences, routing.compresses) == (("a",), None, False)


@pytest.mark.parametrize(
    ("body", "models"),
    [
        ({"model": "a", "models": ["b", "c"]}, ("a", "b", "c")),
        ({"models": ["b", "c"]}, ("b", "c")),
        ({"model": "a", "models": ["a", "b", "a"]}, ("a", "b")),
        ({"model": "a", "models": None}, ("a",)),
        ({"model": "a", "fallbacks": [{"model": "b"}]}, ("a", "b")),
        ({"model": 7}, ()),
        ({}, ()),
    ],
)
def test_models_are_tried_in_order_and_once(body: dict[str, Any], models: tuple[str, ...]) -> None:
    """The named one first; without a name the dialect's parser says what is missing."""
    assert parse_routing(body).models == models


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"models": "a"}, "models"),
        ({"models": [1]}, "models[0]"),
        ({"models": [str(n) for n in range(9)]}, "models"),
        ({"fallbacks": [{"model": "b"}], "models": ["c"]}, "fallbacks"),
        ({"fallbacks": [{"model": "b", "max_tokens": 1}]}, "fallbacks"),
        ({"fallbacks": [{"model": str(n)} for n in range(4)]}, "fallbacks"),
        ({"provider": []}, "provider"),
        ({"provider": {"only": "acme"}}, "provider.only"),
        ({"provider": {"data_collection": "maybe"}}, "provider.data_collection"),
        ({"provider": {"max_price": {"prompt": "cheap"}}}, "provider.max_price.prompt"),
        ({"provider": {"max_price": {"prompt": []}}}, "provider.max_price.prompt"),
        ({"provider": {"max_price": {"prompt": True}}}, "provider.max_price.prompt"),
        ({"provider": {"max_price": {"prompt": -1}}}, "provider.max_price.prompt"),
        ({"provider": {"max_price": {"image": "Infinity"}}}, "provider.max_price.image"),
        ({"plugins": [{}]}, "plugins[0].id"),
        ({"plugins": [{"id": "web"}]}, "plugins"),
        ({"session_id": "x" * 257}, "session_id"),
        ({"trace": "x"}, "trace"),
        ({"preset": "mine"}, "preset"),
    ],
)
def test_a_malformed_field_is_named(body: dict[str, Any], param: str) -> None:
    """As is one whose effect nobody here can have."""
    with pytest.raises(InvalidRequest) as refusal:
        parse_routing({"model": "m", **body})
    assert refusal.value.param == param


def test_what_only_a_marketplace_can_act_on_changes_nothing() -> None:
    """Sorting, speeds and fields nobody knows are accepted."""
    parse_routing(
        {
            "model": "m",
            "route": "fallback",
            "provider": {"sort": {"by": "price"}, "preferred_min_throughput": 9, "new": 1},
            "plugins": [{"id": "web", "enabled": False}, {"id": "response-healing"}],
            "trace": {"trace_id": "t"},
            "session_id": "s",
        }
    )


@pytest.mark.parametrize(
    ("fields", "compresses"),
    [
        ({"transforms": ["middle-out"]}, True),
        ({"transforms": []}, False),
        ({"plugins": [{"id": "context-compression"}]}, True),
        ({"plugins": [{"id": "context-compression", "enabled": False}]}, False),
        (
            {
                "transforms": ["middle-out"],
                "plugins": [{"id": "context-compression", "enabled": False}],
            },
            False,
        ),
    ],
)
def test_compression_is_asked_for_in_two_ways(
    fields: dict[str, Any],
    compresses: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    """The newer one counts if both are there."""
    assert parse_routing({"model": "m", **fields}).compresses is compresses


@pytest.mark.parametrize(
    "provider",
    [
        {},
        {"only": ["acme"]},
        {"only": ["other", "ACME/int8"]},
        {"ignore": ["other"]},
        {"order": ["other"]},
        {"order": [":floor"], "allow_fallbacks": True},
        {"order": ["acme"], "allow_fallbacks": False},
        {"data_collection": "deny"},
        {"require_parameters": True},
        {"quantizations": ["int8", "fp8"]},
        {"max_price": {"prompt": 1, "completion": "2", "request": 0}},
    ],
)
def test_preferences_that_this_provider_meets(provider: dict[str, Any]) -> None:
    """They are met."""
    check_preferences(preferences(**provider), SPEC, US, NOON_S)


@pytest.mark.parametrize(
    ("provider", "param", "excluded_by"),
    [
        ({"only": ["other"]}, "only", "allowed_providers"),
        ({"ignore": ["acme/int8"]}, "ignore", "allowed_providers"),
        ({"order": ["other"], "allow_fallbacks": False}, "order", "allowed_providers"),
        ({"zdr": True}, "zdr", "data_policy:zdr"),
        ({"quantizations": ["fp16"]}, "quantizations", "quantization"),
        ({"max_price": {"prompt": 0.99}}, "max_price", "max_price"),
        ({"max_price": {"completion": "1.999"}}, "max_price", "max_price"),
        ({"enforce_distillable_text": True}, "enforce_distillable_text", None),
    ],
)
def test_preferences_that_rule_this_provider_out(
    provider: dict[str, Any], param: str, excluded_by: str | None
) -> None:
    """404, with the preference that does it."""
    with pytest.raises(NoEndpoints) as refusal:
        check_preferences(preferences(**provider), SPEC, US, NOON_S)
    assert refusal.value.param == f"provider.{param}"
    assert refusal.value.excluded_by == excluded_by


def test_the_price_of_the_hour_is_compared() -> None:
    """At night it is low enough."""
    cheap = preferences(max_price={"prompt": 0.5})
    check_preferences(cheap, SPEC, US, 0.0)
    with pytest.raises(NoEndpoints, match="prompt price is 1 USD"):
        check_preferences(cheap, SPEC, US, NOON_S)


def test_the_price_of_the_prompt_s_length_is_compared() -> None:
    """A tier begins at its least length; before the prompt is counted the base price stands."""
    tier = PriceTier(min_prompt_tokens=1000, prices=Prices(prompt=Decimal("0.000005")))
    spec = replace(SPEC, prices=Prices(prompt=Decimal("0.000001"), tiers=(tier,)))
    cheap = preferences(max_price={"prompt": 1})
    check_preferences(cheap, spec, US, NOON_S)
    check_preferences(cheap, spec, US, NOON_S, 999)
    with pytest.raises(NoEndpoints, match="prompt price is 5 USD"):
        check_preferences(cheap, spec, US, NOON_S, 1000)


@pytest.mark.parametrize(
    ("limited", "billed_as", "prices"),
    [
        ("completion", "internal_reasoning", Prices(internal_reasoning=Decimal("0.000009"))),
        ("prompt", "input_cache_read", Prices(input_cache_read=Decimal("0.000009"))),
    ],
)
def test_every_price_that_a_bill_takes_is_compared(
    limited: str, billed_as: str, prices: Prices
) -> None:
    """Tokens that cost more than their kind are not let in under the kind's limit."""
    spec = replace(SPEC, prices=prices)
    check_preferences(preferences(max_price={limited: 9}), spec, US, NOON_S)
    with pytest.raises(NoEndpoints, match=f"{billed_as} price is 9 USD"):
        check_preferences(preferences(max_price={limited: 8.9}), spec, US, NOON_S)


def test_a_provider_that_keeps_prompts_is_not_asked_by_who_minds() -> None:
    """And one that declares zero retention may be asked by who insists on it."""
    keeps = ProviderSettings(slug="acme", retention_days=30)
    clean = ProviderSettings(slug="acme", retention_days=0, trains_on_prompts=False)
    check_preferences(preferences(zdr=True), SPEC, clean, NOON_S)
    with pytest.raises(NoEndpoints) as refusal:
        check_preferences(preferences(data_collection="deny"), SPEC, keeps, NOON_S)
    assert refusal.value.excluded_by == "data_policy:training"


@pytest.mark.parametrize(
    ("name", "base", "variant"),
    [
        ("acme/m:nitro", "acme/m", "nitro"),
        ("acme/m:free", "acme/m", "free"),
        ("acme/m:other", "acme/m:other", None),
        ("m", "m", None),
        (":free", ":free", None),
    ],
)
def test_a_variant_stands_behind_a_colon(name: str, base: str, variant: str | None) -> None:
    """Only one that is known; ids may hold colons themselves."""
    assert split_variant(name) == (base, variant)


def test_nobody_pays_for_what_is_called_free() -> None:
    """A model with a price has no free variant."""
    check_variant(ModelSpec(id="m", source="x"), "m:free", "free")
    check_variant(SPEC, "acme/m:nitro", "nitro")
    with pytest.raises(NoEndpoints) as refusal:
        check_variant(SPEC, "acme/m:free", "free")
    assert refusal.value.code == "free_variant_ended"


def test_presets_are_refused_by_name() -> None:
    """They would change what is asked."""
    with pytest.raises(UnsupportedParameter):
        parse_routing({"model": "m", "preset": "x"})


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)


@given(
    st.dictionaries(st.sampled_from([*sorted(_FIELDS), "model"]), json_values),
    st.dictionaries(st.sampled_from(["order", "only", "max_price", "zdr"]), json_values),
)
def test_whatever_is_sent_is_read_or_refused(body: dict[str, Any], provider: Any) -> None:
    """By name, and never with a traceback."""
    for sent in (body, {**body, "provider": provider}):
        param: str | None = "models"
        try:
            parse_routing(sent)
        except InvalidRequest as refusal:
            param = refusal.param
        assert param is not None
        assert re.split(r"[.\[]", param)[0] in _FIELDS
