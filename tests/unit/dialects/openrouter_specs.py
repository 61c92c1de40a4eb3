"""Random models as a configuration may describe them, for the tests of listings."""

from dataclasses import replace
from decimal import Decimal

from hypothesis import strategies as st

from provider_core.dialects.openrouter.monitor import ListedBy, Place
from provider_core.prices import Prices, PriceTier, PriceWindow
from provider_core.settings import ProviderSettings
from provider_core.types import Capacity, Feature, ModelSpec

FEATURES: list[Feature] = ["chat", "tools", "json_mode", "structured_outputs", "logprobs"]

texts = st.text(max_size=20)
amounts = st.one_of(
    st.just(Decimal(0)),
    st.decimals(min_value=0, max_value=1000, places=12, allow_nan=False),
    st.integers(1, 10**6).map(lambda n: Decimal(n).scaleb(-18)),  # prints with an exponent
)
maybe_amounts = st.none() | amounts
plain_prices = st.builds(
    Prices,
    prompt=amounts,
    completion=amounts,
    request=amounts,
    image=amounts,
    input_cache_read=maybe_amounts,
    input_cache_write=maybe_amounts,
    internal_reasoning=maybe_amounts,
)


@st.composite
def prices(draw: st.DrawFn) -> Prices:
    """With tiers, with windows, or plain; per request and image they are the same throughout."""
    base = draw(plain_prices)
    other, third = (
        replace(draw(plain_prices), request=base.request, image=base.image) for _ in range(2)
    )
    tiers = (
        PriceTier(min_prompt_tokens=draw(st.integers(1, 1000)), prices=other),
        PriceTier(min_prompt_tokens=draw(st.integers(1001, 10**6)), prices=third),
    )
    windows = (
        PriceWindow(utc_start=draw(st.sampled_from([0, 130, 559])), utc_end=600, prices=other),
        PriceWindow(utc_start=2200, utc_end=0, prices=other),
    )
    kind = draw(st.sampled_from(["tiers", "windows", "plain"]))
    count = draw(st.integers(1, 2))
    return replace(
        base,
        tiers=tiers[:count] if kind == "tiers" else (),
        windows=windows[:count] if kind == "windows" else (),
    )


counts = st.none() | st.integers(1, 10**9)
capacities = st.builds(
    Capacity,
    requests_per_minute=counts,
    requests_per_day=counts,
    prompt_tokens_per_minute=counts,
    completion_tokens_per_minute=counts,
    concurrent_requests=counts,
)
specs = st.builds(
    ModelSpec,
    id=st.text(min_size=1, max_size=40),
    source=st.just("x"),
    name=texts,
    description=texts,
    created=st.integers(0, 2**31),
    max_model_len=st.integers(2, 10**7),
    max_output_tokens=st.none() | st.integers(1, 10**6),
    max_num_seqs=st.integers(1, 1024),
    quantization=st.sampled_from([None, "int4", "int8", "fp8", "bf16", "fp32"]),
    is_ready=st.booleans(),
    hugging_face_id=texts,
    tokenizer=st.none() | texts,
    openrouter_slug=st.none() | texts,
    deprecation_date=st.sampled_from([None, "2026-06-01", "2028-02-29", "2026-06-01T15:00:00Z"]),
    is_free=st.sampled_from([None, True, False]),
    discount_to_user=st.none() | st.floats(-2, 0.99, allow_nan=False),
    input_modalities=st.sampled_from([("text",), ("text", "image")]),
    output_modalities=st.sampled_from([("text",), ("embeddings",), ("rerank",)]),
    features=st.frozensets(st.sampled_from([*FEATURES, "reasoning"])),
    capacity=capacities,
    prices=prices(),
)
listers = st.builds(
    ListedBy,
    provider=st.builds(
        ProviderSettings,
        certifications=st.sampled_from([(), ("HIPAA", "soc2")]),
        retention_days=st.sampled_from([None, 0.0, 30.0]),
        trains_on_prompts=st.sampled_from([None, True, False]),
    ),
    places=st.sampled_from([(), (Place(country="DE", region="eu-1"), Place(country="FR"))]),
)
