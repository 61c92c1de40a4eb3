"""The documents that OpenRouter's monitor reads: schema 2.4, the rules that only prose has, prices.

Every function raises `Failed` with the first rule that is broken.
"""

import json
import re
from collections.abc import Iterator, Mapping
from decimal import Decimal
from functools import cache
from importlib.resources import files
from typing import Any

import jsonschema_rs

from provider_core.conformance.verdict import Failed, require

_QUALIFIERS = ("type", "unit", "ttl_seconds", "implicit", "utc_start", "utc_end")
_DIGITS = re.compile(r"\d+(\.\d+)?")
_LEGACY_FIELDS: Mapping[str, type] = {
    "id": str,
    "name": str,
    "created": int,
    "input_modalities": list,
    "output_modalities": list,
    "context_length": int,
    "max_output_length": int,
    "pricing": dict,
    "supported_sampling_parameters": list,
    "supported_features": list,
}
_FLAT_NAMES = {
    "prompt": "prompt",
    "completion": "completion",
    "cached_prompt": "input_cache_read",
    "cache_write": "input_cache_write",
    "internal_reasoning": "internal_reasoning",
}


@cache
def _validator() -> Any:  # its class depends on the schema's dialect
    data = files("provider_core.conformance") / "data" / "openrouter_monitor_2_4.schema.json"
    return jsonschema_rs.validator_for(json.loads(data.read_bytes()))


def check_monitor(document: Any) -> None:  # any server's JSON
    """Check a whole document of schema 2.4."""
    found = next(_validator().iter_errors(document), None)
    if found is not None:
        where = "".join(f"[{step!r}]" for step in found.instance_path)
        raise Failed(f"{where or 'the document'}: {found.message}")
    ids = [model["id"] for model in document["data"]]
    require(len(set(ids)) == len(ids), "two models have one id")
    for model in document["data"]:
        _check_model(model)


def check_legacy(document: Any) -> None:  # any server's JSON
    """Check a whole document of the flat form before it."""
    for model in document["data"]:
        for name, kind in _LEGACY_FIELDS.items():
            value = model.get(name)
            require(type(value) is kind, f"{name} of {model.get('id')} is {value!r}")
        for name, amount in model["pricing"].items():
            if name not in {"overrides", "discount"}:
                _check_amount(amount, name)
        discount = model.get("discount_to_user", 0)
        require(discount < 1, f"discount_to_user is {discount}, which counts as 0")


def base_prices(model: Mapping[str, Any]) -> dict[str, Decimal]:
    """Base prices of a 2.4 document under their flat names, without those of nothing."""
    return {
        _FLAT_NAMES[entry["type"]]: Decimal(entry["cost_usd"])
        for entries in _price_lists(model)
        for entry in entries
        if entry["type"] in _FLAT_NAMES and entry["unit"] == "token" and "utc_start" not in entry
    }


def flat_prices(pricing: Mapping[str, Any]) -> dict[str, Decimal]:
    """Prices of a flat list per token, without those of nothing."""
    return {
        name: Decimal(str(pricing[name]))
        for name in _FLAT_NAMES.values()
        if pricing.get(name) is not None
    }


def _price_lists(model: Mapping[str, Any]) -> Iterator[list[dict[str, Any]]]:
    for owner in (model, *model["input_modalities"], *model["output_modalities"]):
        if "pricing" in owner:
            yield owner["pricing"]


def _check_model(model: Mapping[str, Any]) -> None:
    for entries in _price_lists(model):
        identities = [tuple(entry.get(name) for name in _QUALIFIERS) for entry in entries]
        require(len(set(identities)) == len(identities), "one price is listed twice")
        for entry in entries:
            _check_amount(entry["cost_usd"], entry["type"])
            _check_window(entry)
        for kind in {entry["type"] for entry in entries} - {"cached_prompt", "internal_reasoning"}:
            costs = [cost for entry in entries if entry["type"] == kind for cost in _costs(entry)]
            require(any(costs), f"a price of 0 is listed for {kind}, which is not billed")
    moment = model.get("deprecation_date", "")
    require("T" not in moment or moment.endswith(":00:00Z"), f"{moment} is not a full hour")
    capacities = [(c["type"], c["unit"], c.get("per")) for c in model.get("capacity", ())]
    require(len(set(capacities)) == len(capacities), "one capacity is listed twice")


def _costs(entry: Mapping[str, Any]) -> list[Decimal]:
    overrides = entry.get("overrides", ())
    return [Decimal(entry["cost_usd"]), *(Decimal(each["cost_usd"]) for each in overrides)]


def _check_amount(amount: object, name: str) -> None:
    is_plain = isinstance(amount, str) and _DIGITS.fullmatch(amount)
    require(is_plain, f"the price of {name} is {amount!r}, not a string of plain digits")


def _check_window(entry: Mapping[str, Any]) -> None:
    start, end = entry.get("utc_start"), entry.get("utc_end")
    require((start is None) == (end is None), "a time window has one end only")
    if start is not None and end is not None:
        require(start != end, "a time window ends where it starts")
        require(start % 100 < 60 and end % 100 < 60, "a time window has minutes beyond 59")
