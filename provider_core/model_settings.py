"""The `[[model]]` tables of `provider.toml`: what is served, at which prices, how it is listed."""

from datetime import date
from itertools import combinations, pairwise
from typing import Annotated, Any, Literal, LiteralString, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from provider_core.prices import Prices, PriceWindow

SecretUri = Annotated[str, Field(pattern=r"^[a-z][a-z0-9+-]*://")]
"""Names a secret that the hook `load_secret` reads."""

DecimalString = Annotated[str, Field(pattern=r"^(0|[1-9][0-9]*)(\.[0-9]{1,18})?$")]
"""Money: digits with an optional fraction, never a float, so that it is exact."""

MAX_EXCEPTIONS = 2
"""Tiers or windows of a model: what OpenRouter's older listing can say."""


class Table(BaseModel):
    """A table of the file: unknown keys are mistakes, and nothing changes after the start."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def _real_day(value: str) -> str:
    try:
        date.fromisoformat(value[:10])
    except ValueError:
        raise PydanticCustomError("day", "must be a day of the calendar") from None
    return value


def _clock_time(value: int) -> int:
    if value % 100 >= 60:
        raise PydanticCustomError("clock_time", "must be hours times 100 plus minutes")
    return value


_Day = Annotated[str, AfterValidator(_real_day)]
_ClockTime = Annotated[int, Field(ge=0, le=2359), AfterValidator(_clock_time)]


class _ExceptionalPrices(Table):
    """Prices instead of others; what is left open is as in the table above."""

    prompt: DecimalString | None = Field(None, description="Per prompt token.")
    completion: DecimalString | None = Field(None, description="Per completion token.")
    input_cache_read: DecimalString | None = Field(None, description="Per cached prompt token.")
    input_cache_write: DecimalString | None = Field(None, description="Per token written.")
    internal_reasoning: DecimalString | None = Field(None, description="Per reasoning token.")


class PriceTierSettings(_ExceptionalPrices):
    """`[[model.pricing.tiers]]`: prices of long prompts."""

    min_prompt_tokens: int = Field(ge=1, description="From so many prompt tokens on.")


class PriceWindowSettings(_ExceptionalPrices):
    """`[[model.pricing.windows]]`: prices at a time of day."""

    utc_start: _ClockTime = Field(description="From this time, `830` for 08:30 UTC.")
    utc_end: _ClockTime = Field(description="Up to this time; may lie after midnight.")


class PricingSettings(Table):
    """`[model.pricing]`: USD per unit, as strings."""

    prompt: DecimalString = Field("0", description="Per prompt token.")
    completion: DecimalString = Field("0", description="Per completion token.")
    request: DecimalString = Field("0", description="Per request.")
    image: DecimalString = Field("0", description="Per image.")
    input_cache_read: DecimalString | None = Field(
        None, description="Per cached prompt token; default: the prompt price."
    )
    input_cache_write: DecimalString | None = Field(
        None, description="Per prompt token written to a cache; default: the prompt price."
    )
    internal_reasoning: DecimalString | None = Field(
        None, description="Per reasoning token; default: the completion price."
    )
    version: str | None = Field(
        None, max_length=64, description="Names this price list; default: a digest of the prices."
    )
    tiers: tuple[PriceTierSettings, ...] = Field(
        (), max_length=MAX_EXCEPTIONS, description="Other prices for long prompts, shortest first."
    )
    windows: tuple[PriceWindowSettings, ...] = Field(
        (),
        max_length=MAX_EXCEPTIONS,
        description="Other prices at times of the day, the same in all; not beside tiers.",
    )

    @model_validator(mode="after")
    def _check_exceptions(self) -> Self:
        problem = self._problem()
        if problem is not None:
            raise PydanticCustomError("pricing", problem)
        return self

    def _problem(self) -> LiteralString | None:
        if self.tiers and self.windows:
            return "tiers and windows cannot be combined"
        if any(
            low.min_prompt_tokens >= high.min_prompt_tokens for low, high in pairwise(self.tiers)
        ):
            return "tiers must have growing min_prompt_tokens"
        if any(window.utc_start == window.utc_end for window in self.windows):
            return "a window must not end where it starts"
        for one, other in combinations(self.windows, 2):
            if _window(one).covers(other.utc_start) or _window(other).covers(one.utc_start):
                return "windows must not overlap"
            if _amounts(one) != _amounts(other):
                return "windows must have the same prices"
        return None


def _window(table: PriceWindowSettings) -> PriceWindow:
    return PriceWindow(utc_start=table.utc_start, utc_end=table.utc_end, prices=Prices())


def _amounts(table: _ExceptionalPrices) -> dict[str, str]:
    return table.model_dump(include=set(_ExceptionalPrices.model_fields), exclude_none=True)


class CapacitySettings(Table):
    """`[model.capacity]`: what listings say the model can take; nothing is enforced by it."""

    requests_per_minute: int | None = Field(None, ge=1, description="Requests a minute.")
    requests_per_day: int | None = Field(None, ge=1, description="Requests a day.")
    prompt_tokens_per_minute: int | None = Field(None, ge=1, description="Prompt tokens a minute.")
    completion_tokens_per_minute: int | None = Field(
        None, ge=1, description="Completion tokens a minute."
    )
    concurrent_requests: int | None = Field(
        None, ge=1, description="Requests at a time; default: `max_num_seqs`."
    )


class ModelLimitSettings(Table):
    """`[model.limits]`: how fast each key may use the model, beside the key's own limits."""

    requests_per_minute: int | None = Field(None, ge=1, description="Of one key; default: any.")
    requests_per_day: int | None = Field(None, ge=1, description="Of one key; default: any.")
    tokens_per_minute: int | None = Field(
        None, ge=1, description="Of one key, prompts and replies; default: any."
    )
    concurrent_requests: int | None = Field(
        None, ge=1, description="Of one key at the same time; default: any."
    )


class CardExampleSettings(Table):
    """`[[model.card.examples]]`."""

    prompt: str = Field(description="What a user writes.")
    answer: str = Field(description="What the model says to it.")


class CardRecommendationSettings(Table):
    """`[[model.card.recommendations]]`."""

    purpose: str = Field(description="When to ask so.")
    parameters: dict[str, Any] = Field(
        default_factory=dict,
        description="Fields of requests.",  # any JSON value, shown as it is
    )


class CardMeasurementSettings(Table):
    """`[[model.card.measurements]]`."""

    name: str = Field(description="What was measured.")
    value: str = Field(description="With its unit.")
    conditions: str = Field("", description="How, so that it can be measured again.")


class CardSettings(Table):
    """`[model.card]`: what the model's page says beside what the server knows itself."""

    use_cases: tuple[str, ...] = Field((), description="What it is for.")
    strengths: tuple[str, ...] = Field((), description="What it does well.")
    limitations: tuple[str, ...] = Field(
        (), description="What it does not do, and what it must not be used for."
    )
    prompting: tuple[str, ...] = Field((), description="How to write to it.")
    examples: tuple[CardExampleSettings, ...] = Field((), description="Prompts and answers.")
    recommendations: tuple[CardRecommendationSettings, ...] = Field(
        (), description="Parameters that suit a purpose."
    )
    measurements: tuple[CardMeasurementSettings, ...] = Field(
        (), description="Scores, latencies, throughputs."
    )


class ModelSettings(Table):
    """`[[model]]`: one model to serve."""

    id: str = Field(
        min_length=1,
        max_length=256,
        pattern=r"^[^\s\x00-\x1f]+$",
        description="Public name, priced and logged.",
    )
    source: str = Field(min_length=1, description="A folder, or a URI a plugin can fetch.")
    backend: str | None = Field(None, description="Plugin that must load it; default: the first.")
    precision: str | None = Field(None, description="Precision to run in; default: as supplied.")
    aliases: tuple[str, ...] = Field((), description="Further names a request may use.")
    name: str = Field("", description="Display name; default: the id.")
    description: str = Field("", description="One paragraph for listings.")
    family: str | None = Field(
        None, description="Architecture; default: the folder's `model_type`."
    )
    owned_by: str = Field("provider-core", description="`owned_by` in the list of models.")
    knowledge_cutoff: str | None = Field(None, description="Date of the newest training data.")
    languages: tuple[str, ...] = Field((), description="ISO 639-1 codes.")
    created: int = Field(0, ge=0, description="Unix seconds; default: the folder's age.")
    max_model_len: int | None = Field(
        None, ge=2, description="Most tokens of prompt and completion; default: the folder's."
    )
    max_output_tokens: int | None = Field(
        None, ge=1, description="Most completion tokens of one choice; default: what fits."
    )
    max_num_seqs: int = Field(32, ge=1, le=1024, description="Most sequences in one step.")
    prefix_cache_mib: int = Field(
        512, ge=0, description="MiB for cached beginnings of prompts; 0 is off."
    )
    quantization: Literal["int4", "int8", "fp4", "fp6", "fp8", "fp16", "bf16", "fp32"] | None = (
        Field(
            None,
            description="Listed precision, unless a lower one runs; "
            "default: what the folder or runner says.",
        )
    )
    is_ready: bool = Field(True, description="`false` lists the model and refuses its requests.")  # noqa: FBT003
    deterministic: bool = Field(
        False,  # noqa: FBT003 - the default's place in pydantic
        description="`true`: what runs beside a request never changes its text, even by rounding.",
    )
    tool_parser: str | None = Field(
        None, description="How it writes calls of tools; default: as its chat template shows."
    )
    reasoning_parser: str | None = Field(
        None, description="How it marks its reasoning; default: as its chat template shows."
    )
    hugging_face_id: str = Field("", description="Where the model is on Hugging Face, if it is.")
    tokenizer: str | None = Field(
        None, description="Family of its tokenizer in listings, such as `Llama3`."
    )
    openrouter_slug: str | None = Field(None, description="What OpenRouter calls the model.")
    deprecation_date: _Day | None = Field(
        None,
        pattern=r"^\d{4}-\d{2}-\d{2}(T([01]\d|2[0-3]):00:00Z)?$",
        description="When it goes: `2026-06-01`, or with a full hour, `2026-06-01T15:00:00Z`.",
    )
    is_free: bool | None = Field(
        None, description="`true` lists it as free and allows no price; `false` as paid again."
    )
    discount_to_user: float | None = Field(
        None, lt=1, description="Fraction that a marketplace takes off the listed prices."
    )
    capacity: CapacitySettings = CapacitySettings()
    limits: ModelLimitSettings = ModelLimitSettings()
    card: CardSettings = CardSettings()
    pricing: PricingSettings = PricingSettings()
    options: dict[str, Any] = Field(
        default_factory=dict,
        description="Passed to the backend untouched.",  # any TOML value; the backend checks it
    )

    @model_validator(mode="after")
    def _check_free(self) -> Self:
        pricing = self.pricing
        prices = pricing.model_dump(exclude={"version", "tiers", "windows"}, exclude_none=True)
        has_price = any(price.strip("0.") for price in prices.values())
        if self.is_free and (has_price or pricing.tiers or pricing.windows):
            raise PydanticCustomError("is_free", "a model that is_free must have no price")
        return self
