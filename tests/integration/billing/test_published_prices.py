"""The price that is published is the price that is charged, wherever either is said."""

from fractions import Fraction
from typing import Any

import orjson
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.serving import Serving, saying, serving

PRICING: dict[str, Any] = {
    "prompt": "0.00000013",
    "completion": "0.00000071",
    "request": "0.00000000001",
    "input_cache_read": "0.000000017",
    "version": "2026-11",
}
TIERS = [{"min_prompt_tokens": 60, "prompt": "0.00000029", "completion": "0.0000015"}]
ALL_DAY = [
    {"utc_start": 0, "utc_end": 1200, "prompt": "0.00000005", "completion": "0.00000003"},
    {"utc_start": 1200, "utc_end": 0, "prompt": "0.00000005", "completion": "0.00000003"},
]


async def json_of(served: Serving, path: str) -> Any:
    """A body."""
    async with served.session.get(served.url + path) as response:
        return await response.json()


def charged(pricing: dict[str, Any], event: dict[str, Any]) -> Fraction:
    """What a client computes from published strings and the usage that it was told."""
    prices = dict(pricing)
    for override in prices.pop("overrides", ()):
        is_long = event["prompt_tokens"] > override.get("min_prompt_tokens", 2**60)
        if is_long or "utc_start" in override:
            prices.update(override)
    price: dict[str, Fraction] = {name: Fraction(str(value)) for name, value in prices.items()}
    cached = event["cached_tokens"]
    cost: Fraction = (
        (event["prompt_tokens"] - cached) * price["prompt"]
        + cached * price.get("input_cache_read", price["prompt"])
        + event["completion_tokens"] * price["completion"]
        + price["request"]
    )
    return cost


@pytest.mark.parametrize("path", ["/v1/models", "/api/v1/models"])
@pytest.mark.parametrize("exceptions", [{}, {"tiers": TIERS}, {"windows": ALL_DAY}])
async def test_the_published_price_is_charged(path: str, exceptions: dict[str, Any]) -> None:
    """Of short and long prompts, by the hour or not: listing and bill agree exactly."""
    async with serving(saying("Hello!"), pricing={**PRICING, **exceptions}) as served:
        (listed,) = (await json_of(served, path))["data"]
        for text in ("hi", "x" * 300):
            await served.chat(text)
        events = served.usage.events
    for event in events:
        assert Fraction(event["cost"]) == charged(listed["pricing"], event)
    assert [event["price_tier"] for event in events] == [0, 1 if "tiers" in exceptions else 0]


async def test_the_cost_is_the_same_wherever_it_is_said() -> None:
    """P4: event, answer, stream, lookup and metrics carry one number."""
    async with serving(saying("Hello!"), pricing=PRICING) as served:
        told = []
        for stream in (False, True):
            response = await served.post(
                "/api/v1/chat/completions",
                {
                    "model": "test-model",
                    "messages": [{"role": "user", "content": "hi"}],
                    "stream": stream,
                    "usage": {"include": True},
                },
            )
            body = await response.read()
            if stream:
                chunks = [
                    orjson.loads(line[6:])
                    for line in body.splitlines()
                    if line.startswith(b"data: {")
                ]
                told.append(next(c["usage"]["cost"] for c in reversed(chunks) if c.get("usage")))
            else:
                told.append(orjson.loads(body)["usage"]["cost"])
        events = served.usage.events
        for event, cost in zip(events, told, strict=True):
            found = await json_of(served, f"/api/v1/generation?id={event['generation_id']}")
            assert float(event["cost"]) == cost == found["data"]["total_cost"]
        async with served.session.get(served.url + "/metrics") as response:
            page = await response.text()
    (total,) = [
        sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
        if sample.name == "provider_cost_usd_total"
    ]
    assert total == pytest.approx(float(sum(Fraction(event["cost"]) for event in events)))
