"""What OpenRouter's clients ask about themselves, where a provider answers under `/api/v1`."""

from typing import Any

from provider_core.conformance.check import Group
from provider_core.conformance.probe import Probe
from provider_core.conformance.verdict import Doubtful, NotApplicable, require

GROUP = Group("accounts")


async def _key(probe: Probe) -> dict[str, Any]:
    reply = await probe.get(f"{probe.endpoint.openrouter}/auth/key")
    if reply.status in {404, 405}:
        raise NotApplicable("there is no /api/v1/auth/key")
    require(reply.status == 200, f"status {reply.status}: {reply.excerpt}")
    data: dict[str, Any] = reply.json()["data"]
    return data


@GROUP.check("key", "GET /api/v1/auth/key knows the key")
async def key(probe: Probe) -> str:
    """Its label and what it has spent."""
    data = await _key(probe)
    require(data.get("label"), "label is empty")
    require(type(data.get("usage")) in {int, float}, f"usage is {data.get('usage')!r}, no number")
    return f"{data['label']}: {data['usage']} USD used"


@GROUP.check("limit", "The key has a credit limit")
async def limit(probe: Probe) -> str:
    """A readiness list for customers wants one; a key without any spends without end."""
    data = await _key(probe)
    if data.get("limit") is None:
        raise Doubtful("this key has no credit limit")
    return f"{data.get('limit_remaining')} of {data['limit']} USD left"


@GROUP.check("generation", "GET /api/v1/generation tells what an answer cost")
async def generation(probe: Probe) -> str:
    """By the id of the answer, right after it, in both forms of the address."""
    base = probe.endpoint.openrouter
    reply = await probe.send("POST", f"{base}/chat/completions", json=probe.chat_body("Hello!"))
    if reply.status != 200:
        raise NotApplicable("there is no /api/v1/chat/completions")
    completion = reply.json()
    for url in (
        f"{base}/generation?id={completion['id']}",
        f"{base}/generation/{completion['id']}",
    ):
        found = await probe.get(url)
        require(found.status == 200, f"status {found.status}: {found.excerpt}")
        data = found.json()["data"]
        prompt, due = data["native_tokens_prompt"], completion["usage"]["prompt_tokens"]
        require(prompt == due, f"{prompt} prompt tokens there, {due} in the answer")
    return f"{data['total_cost']} USD, {data['generation_time']} ms"


@GROUP.check("fallbacks", "models names others to fall back on")
async def fallbacks(probe: Probe) -> str:
    """The first one does not exist, the second one answers."""
    url = f"{probe.endpoint.openrouter}/chat/completions"
    models = ["no-such-model-here", probe.subject.model]
    body = probe.chat_body("Hello!", models=models, route="fallback") | {"model": models[0]}
    reply = await probe.send("POST", url, json=body)
    if reply.status in {400, 404, 405}:
        raise NotApplicable(f"not offered: {reply.status}")
    require(reply.status == 200, f"status {reply.status}: {reply.excerpt}")
    model = reply.json()["model"]
    require(model == models[1], f"answered by {model!r}")
    return f"answered by {model}"
