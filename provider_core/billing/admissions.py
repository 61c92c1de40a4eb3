"""Saying that a generation was admitted: the line that makes a missing bill visible."""

from provider_core.billing.events import SCHEMA, GenerationFacts, ProcessFacts
from provider_core.json_lines import format_timestamp, sanitize


def build_usage_open(
    process: ProcessFacts, facts: GenerationFacts, admitted_s: float
) -> dict[str, object]:
    """Build the event of an admission; nothing is billed by it.

    Args:
        process: Of this process.
        facts: Known at admission.
        admitted_s: Since the request was received.
    """
    principal = facts.principal
    account_id = principal.account_id
    return {
        "event": "usage.open",
        "schema": SCHEMA,
        "timestamp": format_timestamp(facts.received_wall_s + admitted_s),
        "generation_id": facts.generation_id,
        "request_id": facts.request_id,
        "api_key_id": sanitize(principal.api_key_id, 64) or "unknown",
        "account_id": None if account_id is None else sanitize(account_id, 64),
        "endpoint": facts.endpoint,
        "stream": facts.stream,
        "n": facts.n,
        "model": sanitize(facts.model.id, 256) or "unknown",
        "price_version": sanitize(facts.prices.version, 64),
        "received_at": format_timestamp(facts.received_wall_s),
        "boot_id": process.boot_id,
        "service_version": sanitize(process.service_version, 64),
    }
