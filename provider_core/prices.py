"""What a model costs: exact, in USD per one unit. Standard library only, as `types`.

Prices may differ for long prompts or by the time of the day; `billing.money` says which counts.
"""

from dataclasses import dataclass
from decimal import Decimal


@dataclass(frozen=True, slots=True, kw_only=True)
class Prices:
    """USD per one unit, exact. `None` falls back as billing's formula says.

    Attributes:
        prompt: Per prompt token.
        completion: Per completion token.
        request: Per request.
        image: Per image.
        input_cache_read: Per cached prompt token; `None` means the prompt price.
        input_cache_write: Per prompt token written to a cache; `None` means the prompt price.
        internal_reasoning: Per reasoning token; `None` means the completion price.
        version: Names this price list in the usage event.
        tiers: Other prices for long prompts, by their length; not beside `windows`.
        windows: Other prices at times of the day; they do not overlap.
    """

    prompt: Decimal = Decimal(0)
    completion: Decimal = Decimal(0)
    request: Decimal = Decimal(0)
    image: Decimal = Decimal(0)
    input_cache_read: Decimal | None = None
    input_cache_write: Decimal | None = None
    internal_reasoning: Decimal | None = None
    version: str = "0"
    tiers: tuple["PriceTier", ...] = ()
    windows: tuple["PriceWindow", ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceTier:
    """Prices of requests with long prompts, instead of all others.

    Attributes:
        min_prompt_tokens: Of the whole request, this many included, cached ones counted.
        prices: Without tiers or windows of their own.
    """

    min_prompt_tokens: int
    prices: Prices


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceWindow:
    """Prices of requests received at a time of the day, instead of all others.

    Attributes:
        utc_start: Hours times 100 plus minutes, included.
        utc_end: The same, excluded; before `utc_start` if the window spans midnight.
        prices: Without tiers or windows of their own.
    """

    utc_start: int
    utc_end: int
    prices: Prices

    def covers(self, clock_time: int) -> bool:
        """Whether a time of the day, hours times 100 plus minutes, lies in it."""
        if self.utc_start < self.utc_end:
            return self.utc_start <= clock_time < self.utc_end
        return clock_time >= self.utc_start or clock_time < self.utc_end
