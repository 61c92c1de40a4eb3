"""Usage for AWS Marketplace: summed before it is sent, since an hour cannot be sent twice.

`BatchMeterUsage` takes the same customer, dimension and hour again only with the same quantity,
at most 25 records a call and up to six hours late.
"""

from collections import defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from provider_core.billing.audit.books import Books, Period
from provider_core.billing.audit.exports import customer_of, unix_s
from provider_core.billing.audit.skus import charges
from provider_core.errors import ConfigurationError

MAX_RECORDS = 25
MAX_QUANTITY = 2**31 - 1
_HOUR_S = 3600
_Key = tuple[int, str, str]  # hour in Unix seconds, customer, dimension


def batches(books: Books, period: Period, *, product_code: str) -> Iterator[dict[str, Any]]:
    """The bodies of all calls for a period that ends with a whole hour.

    Args:
        books: A bill that was taken back, whenever, is not in the sums.
        period: Of the bills' timestamps.
        product_code: Of the listing.

    Raises:
        ConfigurationError: A sum is more than a record can hold.
    """
    taken_back = {
        event_id
        for (event_id,) in books.query("SELECT refers_to FROM entries WHERE refers_to > ''")
    }
    sums: dict[_Key, int] = defaultdict(int)
    for event in books.events(period, "usage.final"):
        if event["billable"] and event["event_id"] not in taken_back:
            hour = unix_s(event["timestamp"]) // _HOUR_S * _HOUR_S
            for charge in charges(event):
                sums[hour, customer_of(event), f"{charge.sku}_{charge.unit.lower()}"] += (
                    charge.quantity
                )
    records = [_record(key, quantity) for key, quantity in sorted(sums.items())]
    for start in range(0, len(records), MAX_RECORDS):
        yield {
            "ProductCode": product_code,
            "UsageRecords": records[start : start + MAX_RECORDS],
        }


def _record(key: _Key, quantity: int) -> dict[str, Any]:
    hour, customer, dimension = key
    if quantity > MAX_QUANTITY:
        raise ConfigurationError(
            f"{quantity} of {dimension} in one hour of {customer} are over {MAX_QUANTITY}, "
            "the most that a record can hold"
        )
    return {
        "Timestamp": datetime.fromtimestamp(hour, UTC).isoformat().replace("+00:00", "Z"),
        "CustomerIdentifier": customer,
        "Dimension": dimension,
        "Quantity": quantity,
    }
