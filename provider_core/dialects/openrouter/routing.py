"""OpenRouter's fields for choosing who answers, in the body of any generating request.

A provider that serves alone has little to choose, and honours all that it can: other models to
try, and preferences that rule this provider out. What only a marketplace can act on (sorting,
preferred speeds) changes nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from provider_core.billing.money import price_list, prices_at, prices_for
from provider_core.dialects.validation import bad_value, validate
from provider_core.errors import NoEndpoints, UnsupportedParameter
from provider_core.prices import Prices
from provider_core.settings import ProviderSettings
from provider_core.types import ModelSpec

MAX_MODELS = 8  # tried for one request
MAX_FALLBACKS = 3  # the same in Anthropic's field
MAX_SESSION_ID = 256  # characters

VARIANTS = ("nitro", "floor", "exacto", "free")
"""What may stand behind a model's id and a colon. All but `free` are ways to sort providers."""

_FIELDS = frozenset(
    {"models", "fallbacks", "provider", "plugins", "transforms", "session_id", "trace", "preset"}
)
_NEEDLESS_PLUGINS = {"response-healing"}  # what they mend does not break here
_PER_MILLION = ("prompt", "completion")
_BILLED_AS = {
    "prompt": ("prompt", "input_cache_read"),
    "completion": ("completion", "internal_reasoning"),
    "request": ("request",),
    "image": ("image",),
}
"""By what `max_price` may name: the prices that a bill may take of it."""
_MILLION = 10**6
_Price = Any  # a number or its decimal string; `_limits` checks it
_MAX_PRICE_DIGITS = 64


class _MaxPrice(BaseModel):
    """`provider.max_price`: USD per million tokens, or per request or image."""

    model_config = ConfigDict(defer_build=True, extra="ignore", frozen=True, allow_inf_nan=False)

    prompt: _Price = None
    completion: _Price = None
    request: _Price = None
    image: _Price = None


class _Provider(BaseModel):
    """`provider`. Null stands for absent."""

    model_config = ConfigDict(defer_build=True, extra="ignore", frozen=True)

    order: list[str] | None = None
    only: list[str] | None = None
    ignore: list[str] | None = None
    allow_fallbacks: bool | None = None
    data_collection: Literal["allow", "deny"] | None = None
    zdr: bool | None = None
    enforce_distillable_text: bool | None = None
    quantizations: list[str] | None = None
    max_price: _MaxPrice | None = None


class _Plugin(BaseModel):
    model_config = ConfigDict(defer_build=True, extra="ignore", frozen=True)

    id: str
    enabled: bool | None = None


class _Fallback(BaseModel):
    model_config = ConfigDict(defer_build=True, extra="ignore", frozen=True)

    model: str = Field(min_length=1)


class _RoutingFields(BaseModel):
    model_config = ConfigDict(defer_build=True, extra="ignore", frozen=True)

    model: Any = None  # the dialect's parser checks it
    models: list[str] | None = None
    fallbacks: list[dict[str, Any]] | None = None
    provider: _Provider | None = None
    plugins: list[_Plugin] | None = None
    transforms: list[str] | None = None
    session_id: str | None = Field(None, max_length=MAX_SESSION_ID)
    trace: dict[str, Any] | None = None
    preset: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Preferences:
    """What a request wants of its provider.

    Attributes:
        order: Providers to try first, by slug.
        only: The only ones, if there is any.
        ignore: Not these.
        allow_fallbacks: Others than those of `order` will do.
        max_price: USD by the names of prices, per million for tokens.
    """

    order: frozenset[str] = frozenset()
    only: frozenset[str] = frozenset()
    ignore: frozenset[str] = frozenset()
    allow_fallbacks: bool = True
    denies_data_collection: bool = False
    requires_zdr: bool = False
    requires_distillable: bool = False
    quantizations: frozenset[str] = frozenset()
    max_price: Mapping[str, Decimal] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Routing:
    """Who may answer a request.

    Attributes:
        models: Tried in order, as the client spelled them; empty if none is named.
        compresses: A prompt that is too long may lose its middle.
        session_id: The client's name for a conversation.
    """

    models: tuple[str, ...] = ()
    preferences: Preferences | None = None
    compresses: bool = False
    session_id: str | None = None


def parse_routing(body: Mapping[str, Any]) -> Routing:
    """Read the routing fields of a request body; the others are the dialect's.

    Raises:
        InvalidRequest: A field is malformed, or there are too many models.
        UnsupportedParameter: A preset is asked for.
    """
    model = body.get("model")
    named = (model,) if isinstance(model, str) and model else ()
    if _FIELDS.isdisjoint(body):
        return Routing(models=named)
    fields = validate(_RoutingFields, dict(body))
    if fields.preset:
        raise UnsupportedParameter("preset is not supported by this server", param="preset")
    others = _fallbacks(fields) if fields.fallbacks else fields.models or []
    models = tuple(dict.fromkeys([*named, *others]))
    if len(models) > MAX_MODELS:
        raise bad_value("models", f"must name at most {MAX_MODELS} models, not {len(models)}")
    return Routing(
        models=models,
        preferences=None if fields.provider is None else _preferences(fields.provider),
        compresses=_compresses(fields),
        session_id=fields.session_id,
    )


def split_variant(name: str) -> tuple[str, str | None]:
    """Part `acme/model:nitro` into the model's id and the variant; `None` for no known variant."""
    base, _, variant = name.rpartition(":")
    return (base, variant) if base and variant in VARIANTS else (name, None)


def check_variant(spec: ModelSpec, name: str, variant: str | None) -> None:
    """Make sure that nobody pays for what is called free.

    Raises:
        NoEndpoints: `:free` of a model that has a price.
    """
    if variant == "free" and not (spec.is_free or price_list(spec.prices).is_free):
        raise NoEndpoints(
            f"the model {name[:64]!r} is not free here; ask for {spec.id!r}",
            param="model",
            code="free_variant_ended",
        )


def check_preferences(
    preferences: Preferences,
    spec: ModelSpec,
    provider: ProviderSettings,
    unix_s: float,
    num_prompt_tokens: int = 0,
) -> None:
    """See whether this provider, with this model, is what the request wants.

    Args:
        preferences: Of the request.
        spec: Of the model.
        provider: Who we are.
        unix_s: When the request came in: prices may depend on it.
        num_prompt_tokens: As will be billed; 0 while they are not known. Prices may depend on it.

    Raises:
        NoEndpoints: It is not; says which preference rules it out.
    """
    _check_slugs(preferences, provider.slug)
    if preferences.denies_data_collection and provider.collects_data:
        raise _private(
            "data_collection", "this provider keeps prompts or trains on them", "training"
        )
    if preferences.requires_zdr and provider.collects_data is not False:
        raise _private("zdr", "this provider does not declare zero data retention", "zdr")
    if preferences.requires_distillable:
        raise _filtered(
            "enforce_distillable_text", "nothing is declared about distilling this model", None
        )
    quantization = spec.quantization or "unknown"
    if preferences.quantizations and quantization not in preferences.quantizations:
        raise _filtered("quantizations", f"the model runs in {quantization}", "quantization")
    _, prices = prices_for(prices_at(spec.prices, unix_s), num_prompt_tokens)
    _check_prices(preferences.max_price, prices)


def _check_prices(limits: Mapping[str, Decimal], prices: Prices) -> None:
    for limited, limit in limits.items():
        for name in _BILLED_AS[limited]:
            price = getattr(prices, name) or Decimal(0)
            price *= _MILLION if limited in _PER_MILLION else 1
            if price > limit:
                raise _filtered(
                    "max_price", f"the {name} price is {price.normalize():f} USD", "max_price"
                )


def _check_slugs(preferences: Preferences, slug: str) -> None:
    others = "another provider is wanted; this one is " + repr(slug)
    for name, rules_out in (
        ("only", bool(preferences.only) and slug not in preferences.only),
        ("ignore", slug in preferences.ignore),
        (
            "order",
            bool(preferences.order)
            and not preferences.allow_fallbacks
            and slug not in preferences.order,
        ),
    ):
        if rules_out:
            raise NoEndpoints(others, param=f"provider.{name}", excluded_by="allowed_providers")


def _private(name: str, message: str, policy: str) -> NoEndpoints:
    return NoEndpoints(
        message,
        param=f"provider.{name}",
        code="privacy_restricted",
        excluded_by=f"data_policy:{policy}",
    )


def _filtered(name: str, message: str, excluded_by: str | None) -> NoEndpoints:
    return NoEndpoints(
        message, param=f"provider.{name}", code="constraint_filtered", excluded_by=excluded_by
    )


def _preferences(fields: _Provider) -> Preferences:
    return Preferences(
        order=_slugs(fields.order),
        only=_slugs(fields.only),
        ignore=_slugs(fields.ignore),
        allow_fallbacks=fields.allow_fallbacks is not False,
        denies_data_collection=fields.data_collection == "deny",
        requires_zdr=bool(fields.zdr),
        requires_distillable=bool(fields.enforce_distillable_text),
        quantizations=frozenset(fields.quantizations or ()),
        max_price={} if fields.max_price is None else _limits(fields.max_price),
    )


def _slugs(names: list[str] | None) -> frozenset[str]:
    """Providers without their variants: `acme/fp8` is one of `acme`."""
    return frozenset(name.lower().partition("/")[0] for name in names or ())


def _limits(fields: _MaxPrice) -> dict[str, Decimal]:
    limits = {}
    for name, value in fields.model_dump(exclude_none=True).items():
        limit = _amount(value)
        if limit is None or not limit.is_finite() or limit < 0:
            raise bad_value(f"provider.max_price.{name}", "must be a number, 0 or more")
        limits[name] = limit
    return limits


def _amount(value: object) -> Decimal | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        return Decimal(str(value)[:_MAX_PRICE_DIGITS])
    except ArithmeticError:
        return None


def _compresses(fields: _RoutingFields) -> bool:
    """Whether the middle of a long prompt may go; never without being asked."""
    compresses = "middle-out" in (fields.transforms or ())
    for plugin in fields.plugins or ():
        if plugin.id == "context-compression":
            compresses = plugin.enabled is not False
        elif plugin.enabled is not False and plugin.id not in _NEEDLESS_PLUGINS:
            raise UnsupportedParameter(
                f"the plugin {plugin.id[:64]!r} is not supported by this server", param="plugins"
            )
    return compresses


def _fallbacks(fields: _RoutingFields) -> list[str]:
    """Anthropic's spelling of `models`."""
    fallbacks = fields.fallbacks or []
    if fields.models:
        raise bad_value("fallbacks", "cannot be combined with models")
    if len(fallbacks) > MAX_FALLBACKS:
        raise bad_value("fallbacks", f"must have at most {MAX_FALLBACKS} items")
    for fallback in fallbacks:
        if fallback.keys() != {"model"}:
            raise bad_value("fallbacks", "must hold objects with a model and nothing else")
    return [validate(_Fallback, fallback).model for fallback in fallbacks]
