"""Cached prompts, seen from outside: usage, bill, metrics, and nothing across tenants."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from provider_core import Principal, hookimpl
from tests.serving import Serving, saying, serving
from tests.sse_checker import check_stream

PROMPT = "A long prompt that two requests have in common: " * 4
HELLO = saying("Hello!", num_cache_blocks=64)
CACHE_PRICE = {"input_cache_read": "0.00000025"}


class Accounts:
    """Lets callers say who they are."""

    @hookimpl
    def authenticate(self, headers: Mapping[str, str]) -> Principal | None:
        """`key account`, or `key` alone."""
        key, _, account = headers.get("X-Who", "").partition(" ")
        return Principal(api_key_id=key, account_id=account or None) if key else None


async def usage_of(served: Serving, *, who: str = "", **fields: Any) -> dict[str, Any]:
    """The usage that a whole reply reports."""
    body = {"model": "test-model", "messages": [{"role": "user", "content": PROMPT}], **fields}
    response = await served.post("/v1/chat/completions", body, headers={"X-Who": who})
    usage: dict[str, Any] = (await response.json())["usage"]
    return usage


async def cached_of(served: Serving, **options: Any) -> int:
    """How many prompt tokens it says were cached."""
    cached: int = (await usage_of(served, **options))["prompt_tokens_details"]["cached_tokens"]
    return cached


async def test_usage_bill_and_metrics_say_what_was_cached() -> None:
    """BUG-29, R11: whole and streamed, with the cache's price; the rest at the prompt's."""
    async with serving(HELLO, pricing=CACHE_PRICE) as served:
        first = await usage_of(served)
        second = await usage_of(served)
        response = await served.chat(PROMPT, stream=True, stream_options={"include_usage": True})
        third = check_stream(await response.read(), kind="chat", include_usage=True).usage
        metrics = await (await served.session.get(served.url + "/metrics")).text()
        bills = served.usage.events
    num_prompt = first["prompt_tokens"]
    num_cached = (num_prompt - 2) // 16 * 16
    assert num_cached > 100
    assert first["prompt_tokens_details"] == {"cached_tokens": 0}
    assert third is not None
    for usage in (second, third):
        assert usage["prompt_tokens"] == num_prompt
        assert usage["prompt_tokens_details"] == {"cached_tokens": num_cached}
    assert [bill["cached_tokens"] for bill in bills] == [0, num_cached, num_cached]
    saved = num_cached * (Decimal("0.000001") - Decimal(CACHE_PRICE["input_cache_read"]))
    costs = [Decimal(bill["cost"]) for bill in bills]
    assert costs[0] - costs[1] == costs[0] - costs[2] == saved
    counted = sum(
        sample.value
        for family in text_string_to_metric_families(metrics)
        for sample in family.samples
        if sample.name == "provider_cached_tokens_total"
    )
    assert counted == 2 * num_cached


async def test_choices_of_one_prompt_do_not_count_each_other_as_cached() -> None:
    """The prompt is billed once, and the first choice computed it; then it is cached."""
    async with serving(HELLO) as served:
        cold = await usage_of(served, n=3)
        warm = await usage_of(served, n=3)
        load = next(iter(served.server.models)).engine.load()
    assert cold["prompt_tokens_details"]["cached_tokens"] == 0
    assert warm["prompt_tokens_details"]["cached_tokens"] > 100
    assert load.num_prompt_tokens < cold["prompt_tokens"] + 5 * 18
    assert load.num_prompt_tokens + load.num_cached_prompt_tokens == 6 * cold["prompt_tokens"]


async def test_tenants_share_nothing() -> None:
    """A7: keys of one account do, keys without an account do not, not even with the same salt."""
    async with serving(HELLO, plugins=(Accounts(),)) as served:
        assert await cached_of(served, who="key-1 acme") == 0
        assert await cached_of(served, who="key-2 acme") > 0
        assert await cached_of(served, who="key-3 other") == 0
        assert await cached_of(served, who="acme") == 0
        assert await cached_of(served, who="acme") > 0
        assert await cached_of(served, who="key-1 acme", cache_salt="s") == 0
        assert await cached_of(served, who="key-4 third", cache_salt="s") == 0
        assert await cached_of(served, who="key-1 acme", cache_salt="s") > 0
