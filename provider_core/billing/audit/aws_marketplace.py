"""Usage for AWS Marketplace: summed before it is sent, since an hour cannot be sent twice.

`BatchMeterUsage` takes the same customer, dimension and hour again only with the same quantity,
at most 25 records a call, less than a day late. Products since June 2026 name buyers by their
account and the license of their agreement, older ones by an identifier of AWS's and a product code.
"""

import time
import tomllib
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from provider_core.billing.audit.books import Books, Period
from provider_core.billing.audit.exports import customer_of, unix_s
from provider_core.billing.audit.skus import charges
from provider_core.errors import ConfigurationError
from provider_core.interfaces import Clock

MAX_RECORDS = 25
MAX_QUANTITY = 2**31 - 1
_HOUR_S = 3600
_Key = tuple[int, str, str]  # hour in Unix seconds, customer, dimension


@dataclass(frozen=True, slots=True)
class Agreement:
    """What a customer bought, as AWS names it.

    Attributes:
        aws_account_id: The buyer's.
        license_arn: Of the agreement.
    """

    aws_account_id: str
    license_arn: str


def read_agreements(path: Path) -> dict[str, Agreement]:
    """Read a TOML file with a table for each customer: `aws_account_id` and `license_arn`.

    Raises:
        OSError: The file cannot be read.
        ConfigurationError: It is no TOML, or a customer's table is none of these.
    """
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"{path} is not valid TOML: {error}") from error
    agreements = {}
    for customer, table in tables.items():
        try:
            agreements[customer] = Agreement(**table)
        except TypeError as error:
            raise ConfigurationError(
                f"{customer} in {path}: write aws_account_id and license_arn, and nothing else"
            ) from error
    return agreements


def batches(
    books: Books,
    period: Period,
    *,
    clock: Clock = time,
    product_code: str = "",
    agreements: Mapping[str, Agreement] | None = None,
) -> Iterator[dict[str, Any]]:
    """The bodies of all calls for a period, up to the hour that was not over at its end.

    Args:
        books: A bill that was taken back, whenever, is not in the sums.
        period: Of the bills' timestamps, in whole hours.
        clock: The time: an hour that is not over is left out.
        product_code: Of a listing without agreements.
        agreements: Of one product, by customer.

    Raises:
        ConfigurationError: The period begins or ends within an hour, a sum is more than a record
            can hold, or a customer has no agreement.
    """
    for bound in filter(None, (period.since, period.until)):
        at = datetime.fromisoformat(bound)
        if at.minute or at.second or at.microsecond:
            raise ConfigurationError(
                f"{bound} is within an hour, which AWS takes once and as a whole"
            )
    this_hour = clock.time() // _HOUR_S * _HOUR_S
    taken_back = {
        event_id for (event_id,) in books.query("SELECT refers_to FROM bills WHERE refers_to > ''")
    }
    sums: dict[_Key, int] = defaultdict(int)
    for event in books.events(period, "usage.final"):
        if event["billable"] and event["event_id"] not in taken_back:
            hour = unix_s(event["timestamp"]) // _HOUR_S * _HOUR_S
            if hour >= this_hour:
                continue
            for charge in charges(event):
                sums[hour, customer_of(event), f"{charge.sku}_{charge.unit.lower()}"] += (
                    charge.quantity
                )
    records = [_record(key, quantity, agreements) for key, quantity in sorted(sums.items())]
    product = {"ProductCode": product_code} if agreements is None else {}
    for start in range(0, len(records), MAX_RECORDS):
        yield {**product, "UsageRecords": records[start : start + MAX_RECORDS]}


def _record(key: _Key, quantity: int, agreements: Mapping[str, Agreement] | None) -> dict[str, Any]:
    hour, customer, dimension = key
    if quantity > MAX_QUANTITY:
        raise ConfigurationError(
            f"{quantity} of {dimension} in one hour of {customer} are over {MAX_QUANTITY}, "
            "the most that a record can hold"
        )
    return {
        "Timestamp": datetime.fromtimestamp(hour, UTC).isoformat().replace("+00:00", "Z"),
        **_buyer(customer, agreements),
        "Dimension": dimension,
        "Quantity": quantity,
    }


def _buyer(customer: str, agreements: Mapping[str, Agreement] | None) -> dict[str, str]:
    if agreements is None:
        return {"CustomerIdentifier": customer}
    agreement = agreements.get(customer)
    if agreement is None:
        raise ConfigurationError(f"{customer} has no agreement, and used what is billed")
    return {
        "CustomerAWSAccountId": agreement.aws_account_id,
        "LicenseArn": agreement.license_arn,
    }
