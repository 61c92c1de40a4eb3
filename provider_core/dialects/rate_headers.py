"""What each dialect's clients are told of rate limits, in the headers of an answer.

OpenAI's say how long it takes until a limit is full again, as a duration in Go's notation;
Anthropic's say when, as a time; OpenRouter's come with refusals only, in Unix milliseconds;
Google has none.
"""

from collections.abc import Mapping
from datetime import UTC, datetime

from provider_core.quotas import RateStatus, Unit

_TOO_MANY = 429


def rate_headers(
    dialect: str, http_status: int, rates: Mapping[Unit, RateStatus], now_s: float
) -> dict[str, str]:
    """The headers of one answer.

    Args:
        dialect: `openai`, `openrouter`, `anthropic` or `google`.
        http_status: Of the answer.
        rates: How the limits stand; units that are not limited are not there.
        now_s: Unix time.
    """
    match dialect:
        case "openai":
            return {
                name: value for unit, rate in rates.items() for name, value in _openai(unit, rate)
            }
        case "anthropic":
            return {
                f"anthropic-ratelimit-{unit}-{name}": value
                for unit, rate in rates.items()
                for name, value in (
                    ("limit", str(rate.limit)),
                    ("remaining", str(rate.remaining)),
                    ("reset", _time(now_s + rate.reset_s)),
                )
            }
        case "openrouter" if http_status == _TOO_MANY and rates:
            rate = min(rates.values(), key=lambda rate: rate.remaining)
            return {
                "X-RateLimit-Limit": str(rate.limit),
                "X-RateLimit-Remaining": str(rate.remaining),
                "X-RateLimit-Reset": str(int((now_s + rate.reset_s) * 1000)),
            }
        case _:
            return {}


def go_duration(seconds: float) -> str:
    """A time as Go writes it, to the millisecond: `12ms`, `1s`, `1.5s`, `6m0s`, `24h0m0s`."""
    milliseconds = round(seconds * 1000)
    if milliseconds < 1000:
        return f"{milliseconds}ms" if milliseconds else "0s"
    whole, milliseconds = divmod(milliseconds, 1000)
    minutes, whole = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    fraction = f".{milliseconds:03}".rstrip("0").rstrip(".")
    prefix = f"{hours}h{minutes}m" if hours else f"{minutes}m" if minutes else ""
    return f"{prefix}{whole}{fraction}s"


def _openai(unit: Unit, rate: RateStatus) -> tuple[tuple[str, str], ...]:
    return (
        (f"x-ratelimit-limit-{unit}", str(rate.limit)),
        (f"x-ratelimit-remaining-{unit}", str(rate.remaining)),
        (f"x-ratelimit-reset-{unit}", go_duration(rate.reset_s)),
    )


def _time(unix_s: float) -> str:
    return datetime.fromtimestamp(unix_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
