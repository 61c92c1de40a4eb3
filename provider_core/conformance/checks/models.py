"""`GET /models`: what is listed, and whether it can be asked."""

from decimal import Decimal, InvalidOperation
from typing import Any
from urllib.parse import quote

from provider_core.conformance.check import Group
from provider_core.conformance.probe import Probe
from provider_core.conformance.verdict import prefer, require
from provider_core.conformance.wire_rules import check_error

GROUP = Group("models")


async def _items(probe: Probe) -> list[dict[str, Any]]:
    reply = await probe.get(f"{probe.endpoint.base}/models")
    require(reply.status == 200, f"status {reply.status}: {reply.excerpt}")
    items = reply.json()["data"]
    require(isinstance(items, list) and items, "data is not a list with an item")
    return list(items)


@GROUP.check("list", "The list of models in OpenAI's form")
async def models_list(probe: Probe) -> str:
    """The fields that every client reads, of every model."""
    items = await _items(probe)
    ids = [item.get("id") for item in items]
    require(len(set(ids)) == len(ids), "two models have one id")
    for item in items:
        require(isinstance(item["id"], str) and item["id"], "a model's id is not a string")
        if not probe.endpoint.is_openrouter:
            require(item.get("object") == "model", f"object is {item.get('object')!r}")
            require(isinstance(item.get("owned_by"), str), "owned_by is not a string")
        require(type(item.get("created")) is int, "created is not an integer")
    require(probe.subject.model in ids, f"{probe.subject.model} is not listed")
    return f"{len(items)} models"


@GROUP.check("limits", "Context length and longest output of every model")
async def limits(probe: Probe) -> str:
    """The questionnaire's two integers."""
    for item in await _items(probe):
        top = item.get("top_provider", {})
        longest = item.get("max_output_tokens", top.get("max_completion_tokens"))
        for name, value in (
            ("context_length", item.get("context_length")),
            ("max_output_tokens", longest),
        ):
            require(type(value) is int and value > 0, f"{name} of {item['id']} is {value!r}")
    listed = probe.subject.listed
    return f"{listed.get('context_length')} and {listed.get('max_output_tokens')} tokens"


@GROUP.check("prices", "Prices of every model")
async def prices(probe: Probe) -> str:
    """Strings of USD per token, which a price of nothing is, too."""
    for item in await _items(probe):
        pricing = item.get("pricing")
        prefer(isinstance(pricing, dict), f"{item['id']} is listed without pricing")
        for name in ("prompt", "completion"):
            amount = pricing.get(name) if isinstance(pricing, dict) else None
            require(isinstance(amount, str), f"pricing.{name} is {amount!r}, not a string")
            try:
                Decimal(str(amount))
            except InvalidOperation:
                require(holds=False, reason=f"pricing.{name} is {amount!r}, not a number")
    pricing = probe.subject.listed.get("pricing", {})
    return f"{pricing.get('prompt')} and {pricing.get('completion')} USD per token"


@GROUP.check("one", "One model by its id")
async def one(probe: Probe) -> str:
    """Its id as clients send it, with a slash encoded; and one that is not there."""
    if probe.endpoint.is_openrouter:
        url = f"{probe.endpoint.base}/model/{probe.subject.model}"
        item = (await probe.get(url)).json()
        item = item.get("data", item)
    else:
        url = f"{probe.endpoint.base}/models/{quote(probe.subject.model, safe='')}"
        item = (await probe.get(url)).json()
    require(item.get("id") == probe.subject.model, f"{url} answers with id {item.get('id')!r}")
    missing = await probe.get(f"{probe.endpoint.base}/models/no-such-model-here")
    is_openrouter = probe.endpoint.is_openrouter
    statuses = (400, 404) if is_openrouter else (404,)  # OpenRouter's variant says 400
    check_error(missing, *statuses, integer_code=is_openrouter)
    return f"found by its id; another id is a {missing.status}"


@GROUP.check("asked", "The listed id is the one that requests use")
async def asked(probe: Probe) -> str:
    """The answer names the model that was asked for."""
    completion = await probe.chat()
    model = completion["model"]
    prefer(model == probe.subject.model, f"asked for {probe.subject.model}, answered as {model}")
    return f"{model}"
