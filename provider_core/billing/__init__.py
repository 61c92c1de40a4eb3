"""Money: what a generation used, what it cost, and the one line that says so."""

from provider_core.billing.events import (
    Endpoint,
    Outcome,
    ProcessFacts,
    build_usage_final,
    content_sha256,
    encode_event,
)
from provider_core.billing.identifiers import make_generation_id, make_request_id, make_ulid
from provider_core.billing.money import PriceList, cost_of, format_money, price_list

__all__ = [
    "Endpoint",
    "Outcome",
    "PriceList",
    "ProcessFacts",
    "build_usage_final",
    "content_sha256",
    "cost_of",
    "encode_event",
    "format_money",
    "make_generation_id",
    "make_request_id",
    "make_ulid",
    "price_list",
]
