"""Adjustments: what is said about a bill after it was written, since no bill is ever changed."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Literal

from provider_core.billing.events import SCHEMA
from provider_core.billing.money import format_money
from provider_core.json_lines import format_timestamp

Reason = Literal["delivery_unknown", "delivery_failed"]

_COPIED = ("generation_id", "request_id", "api_key_id", "account_id", "model", "currency")


def build_adjustment(
    final: Mapping[str, object],
    *,
    cost_delta: Decimal,
    reason: Reason,
    rule: str,
    boot_id: str,
    seq: int,
    wall_s: float,
    service_version: str,
) -> dict[str, object]:
    """Correct a `usage.final` by an amount; `encode_event` makes it a line.

    Args:
        final: The event to correct.
        cost_delta: USD, signed.
        reason: Why.
        rule: Row of the published policy.
        boot_id: Of the journal that it is written to.
        seq: In the same count as the finals of that boot.
        wall_s: Unix seconds.
        service_version: Of this program.
    """
    now = format_timestamp(wall_s)
    return {
        "event": "usage.adjustment",
        "schema": SCHEMA,
        "timestamp": now,
        "event_id": f"{final['generation_id']}:adj:1",
        "content_sha256": "",
        "refers_to": final["event_id"],
        **{name: final[name] for name in _COPIED},
        "cost_delta": format_money(cost_delta),
        "reason": reason,
        "billing_rule": rule,
        "boot_id": boot_id,
        "seq": seq,
        "durable": True,
        "recovered": False,
        "emit_attempt": 1,
        "emitted_at": now,
        "service_version": service_version,
    }
