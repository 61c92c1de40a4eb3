"""What marketplaces list the provider from: valid documents, and one price in all of them."""

from decimal import Decimal

from provider_core.conformance.check import Group
from provider_core.conformance.monitor_rules import (
    base_prices,
    check_legacy,
    check_monitor,
    flat_prices,
)
from provider_core.conformance.probe import Probe
from provider_core.conformance.verdict import Doubtful, NotApplicable, require

GROUP = Group("listings")

_CENT_OF_A_MILLIONTH = Decimal("0.00000001")


@GROUP.check("monitor", "The monitor's document, schema 2.4")
async def monitor(probe: Probe) -> str:
    """Every model, valid under the schema and the rules that only prose has."""
    url = probe.endpoint.root + probe.endpoint.monitor
    reply = await probe.get(url)
    if reply.status == 404:
        raise Doubtful(
            f"there is none at {probe.endpoint.monitor}; new listings need one: name it "
            "with --monitor"
        )
    require(reply.status == 200, f"status {reply.status}: {reply.excerpt}")
    document = reply.json()
    check_monitor(document)
    ids = [model["id"] for model in document["data"]]
    require(probe.subject.model in ids, f"{probe.subject.model} is not among {ids}")
    return f"{len(ids)} models, valid"


@GROUP.check("legacy", "The monitor's older, flat form")
async def legacy(probe: Probe) -> str:
    """Only existing integrations need it."""
    url = f"{probe.endpoint.root}{probe.endpoint.monitor}?format=legacy"
    reply = await probe.get(url)
    items = reply.json()["data"] if reply.status == 200 else []
    if not items or "schema_version" in items[0]:
        raise NotApplicable("it is not offered, and new integrations do not need it")
    check_legacy({"data": items})
    return f"{len(items)} models, valid"


@GROUP.check("mirror", "OpenRouter's own list of models")
async def mirror(probe: Probe) -> str:
    """Only a provider that answers OpenRouter's clients has it."""
    reply = await probe.get(f"{probe.endpoint.openrouter}/models")
    if reply.status == 404:
        raise NotApplicable("there is no /api/v1/models")
    require(reply.status == 200, f"status {reply.status}: {reply.excerpt}")
    item = probe.subject.mirrored
    require(item, f"{probe.subject.model} is not listed")
    for name in ("name", "context_length", "architecture", "pricing", "top_provider"):
        require(item.get(name), f"{name} is missing")
    require(isinstance(item.get("supported_parameters"), list), "supported_parameters is no list")
    return f"{len(reply.json()['data'])} models"


@GROUP.check("prices", "One price in every list")
async def prices(probe: Probe) -> str:
    """The monitor's document, OpenAI's list and OpenRouter's, as exact decimals."""
    subject = probe.subject
    await probe.get(probe.endpoint.root + probe.endpoint.monitor)  # the command shows this one
    flat = {
        "/models": subject.listed.get("pricing"),
        "/api/v1/models": subject.mirrored.get("pricing"),
    }
    found = {name: flat_prices(pricing) for name, pricing in flat.items() if pricing}
    if subject.monitored:
        found["the monitor's document"] = base_prices(subject.monitored)
    if not found:
        raise NotApplicable("no list has prices")
    (first, known), *others = found.items()
    for name, amounts in others:
        for kind in sorted(known.keys() | amounts.keys()):
            one, other = known.get(kind, Decimal(0)), amounts.get(kind, Decimal(0))
            is_default = kind not in {"prompt", "completion"} and not (one and other)
            require(one == other or is_default, f"{kind}: {one} in {first}, {other} in {name}")
    said = ", ".join(f"{kind} {amount}" for kind, amount in known.items())
    return f"{said} USD per token in {', '.join(found)}"


@GROUP.check("cost", "What an answer costs is what the list says")
async def cost(probe: Probe) -> str:
    """`usage.cost` of an answer under `/api/v1`, if there is such a thing."""
    url = f"{probe.endpoint.openrouter}/chat/completions"
    reply = await probe.send("POST", url, json=probe.chat_body("Hello!"))
    if reply.status != 200 or "cost" not in reply.json().get("usage", {}):
        raise NotApplicable("answers do not say what they cost")
    usage = reply.json()["usage"]
    pricing = probe.subject.listed.get("pricing") or probe.subject.mirrored.get("pricing") or {}
    if not pricing or "overrides" in pricing:
        raise NotApplicable("the list has no single price")
    amounts = flat_prices(pricing)
    prompt, completion = amounts["prompt"], amounts["completion"]
    details = usage.get("prompt_tokens_details", {}), usage.get("completion_tokens_details", {})
    cached = details[0].get("cached_tokens", 0)
    reasoning = details[1].get("reasoning_tokens", 0)
    due = (
        (usage["prompt_tokens"] - cached) * prompt
        + cached * amounts.get("input_cache_read", prompt)
        + (usage["completion_tokens"] - reasoning) * completion
        + reasoning * amounts.get("internal_reasoning", completion)
        + Decimal(str(pricing.get("request", "0")))
    )
    said = Decimal(str(usage["cost"]))
    require(abs(said - due) < _CENT_OF_A_MILLIONTH, f"the answer costs {said}, by the list {due}")
    return f"{said} USD for {usage['prompt_tokens']} + {usage['completion_tokens']} tokens"
