"""Configuration and model folder to `ModelSpec`.

`specs_from_settings` says what to serve, `complete_spec` adds what the model's folder knows,
`apply_runner_info` what was really loaded, and `diff` says what a changed file asks for.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import structlog
from pydantic import BaseModel

from provider_core import hookspecs
from provider_core.errors import ConfigurationError
from provider_core.interfaces import RunnerInfo
from provider_core.model_card import (
    CardExample,
    CardMeasurement,
    CardRecommendation,
    ModelCard,
)
from provider_core.model_settings import CardSettings, ModelSettings, PricingSettings
from provider_core.plugins import PluginManager
from provider_core.prices import Prices, PriceTier, PriceWindow
from provider_core.quotas import RateLimits
from provider_core.settings import Settings
from provider_core.types import Capacity, ModelSpec

log = structlog.get_logger()

FALLBACK_MODEL_LEN = 4096
"""Tokens, where neither the configuration nor the folder says."""

NO_LIMIT = 10**9
"""`tokenizer_config.json` writes "no limit" as 1e30; no model reads this many tokens."""

PRECISIONS = {
    "int4": 4,
    "fp4": 4,
    "fp6": 6,
    "int8": 8,
    "fp8": 8,
    "fp16": 16,
    "bf16": 16,
    "fp32": 32,
}
"""Bits of a weight, by OpenRouter's vocabulary for `quantization`."""

# What the server has to load anew when it changes; all else is a fact it can exchange in place.
_LOADED = (
    "source",
    "backend",
    "precision",
    "max_model_len",
    "max_num_seqs",
    "prefix_cache_mib",
    "deterministic",
    "tool_parser",
    "reasoning_parser",
    "options",
)


_USER_INFO = re.compile(
    r"(\w[\w+.-]*)://"
    # Something before an `@`, or behind a `:` what is no port: secrets of AWS have slashes in them.
    r"(?:[^/?#]*@|[^/?#:]*:(?!\d*(?:[/?#]|$))[^?#]*@)"
)

_AMOUNTS = frozenset(
    {
        "prompt",
        "completion",
        "request",
        "image",
        "input_cache_read",
        "input_cache_write",
        "internal_reasoning",
    }
)


def specs_from_settings(settings: Settings, plugins: PluginManager) -> list[ModelSpec]:
    """What to serve: the file's `[[model]]` tables, then `--model`; without both, the plugins'.

    The specs say what is configured; `complete_spec` fills the rest once the folder is local.

    Raises:
        ConfigurationError: There is no model at all, two share an id or an alias, or a source has
            a password in it.
    """
    for source in (*settings.model, *(model.source for model in settings.models)):
        check_source(source)
    specs = [_from_table(model) for model in settings.models]
    specs += [ModelSpec(id=default_id(source), source=source) for source in settings.model]
    if not specs:
        for offered in plugins.every(hookspecs.register_models, settings=settings):
            specs += offered or ()
    if not specs:
        raise ConfigurationError(
            "no model to serve: name one with --model FOLDER, PROVIDER_MODEL or a [[model]] table"
        )
    _check_names(specs)
    return [
        replace(spec, backend=spec.backend or settings.backend, may_build=settings.build)
        for spec in specs
    ]


def check_source(source: str) -> None:
    """Refuse a URI with a name or password of its user in it, before anything prints it.

    Raises:
        ConfigurationError: It has one; the message has not.
    """
    if match := _USER_INFO.match(source):
        raise ConfigurationError(
            f"model source {match[1]}://...: an address must hold no password; the environment "
            "says who we are, as docs/models.md tells for each kind of source"
        )


def default_id(source: str) -> str:
    """The last part of a folder or URI: `s3://bucket/models/tiny/` is served as `tiny`.

    A revision, as in `hf://org/tiny@main`, is none of the name.

    Raises:
        ConfigurationError: The source ends in nothing that can be a name.
    """
    path = urlsplit(source).path if "://" in source else str(Path(source).expanduser().resolve())
    if source.startswith("hf://"):
        path = path.partition("@")[0]
    name = unquote(path).rstrip("/").rpartition("/")[2]
    if not name or any(character.isspace() for character in name):
        raise ConfigurationError(
            f"model source {source!r} gives no id; name the model in a [[model]] table"
        )
    return name


def _check_names(specs: Iterable[ModelSpec]) -> None:
    """Make sure that every id and alias means one model.

    Raises:
        ConfigurationError: One means two.
    """
    owners: dict[str, str] = {}
    for spec in specs:
        for name in (spec.id, *spec.aliases):
            if name in owners:
                raise ConfigurationError(
                    f"the name {name!r} is given to the models {owners[name]!r} and {spec.id!r}"
                )
            owners[name] = spec.id


def complete_spec(spec: ModelSpec, model_dir: Path) -> ModelSpec:
    """Fill what the configuration left open from the model's folder.

    Length: the configuration wins, up to what the model was built for (`max_position_embeddings`,
    genai's `context_length`); without it the least limit found, `model_max_length` and genai's
    `max_length` among them. Ends of text: all ids that any of the folder's files names.

    Raises:
        ConfigurationError: A file of the folder is not JSON, or a length is out of range.
    """
    folder = _Folder.read(model_dir)
    max_model_len = spec.max_model_len or folder.default_len
    if folder.max_len is not None and max_model_len > folder.max_len:
        raise ConfigurationError(
            f"max_model_len of model {spec.id!r} is {max_model_len}, "
            f"over the {folder.max_len} its folder allows"
        )
    if (spec.max_output_tokens or 0) > max_model_len:
        raise ConfigurationError(
            f"max_output_tokens of model {spec.id!r} is {spec.max_output_tokens}, "
            f"over its max_model_len of {max_model_len}"
        )
    declared = folder.quantization
    if spec.precision is not None:  # weights are derived: what the folder says is of others
        declared = spec.precision if spec.precision in PRECISIONS else None
    return replace(
        spec,
        name=spec.name or spec.id,
        family=spec.family or folder.family,
        created=spec.created or folder.created,
        max_model_len=max_model_len,
        eos_token_ids=spec.eos_token_ids or folder.eos_token_ids,
        quantization=spec.quantization or declared,
    )


def apply_runner_info(spec: ModelSpec, info: RunnerInfo) -> ModelSpec:
    """Cut the spec down to what was really loaded, and list no higher precision than that has.

    A lower one may be declared, for weights that were quantised and are stored as floats again.
    """
    max_model_len = min(spec.max_model_len, info.max_model_len)
    quantization, runs_as = spec.quantization, info.precision
    if runs_as in PRECISIONS:
        quantization = quantization or runs_as
        if PRECISIONS[runs_as] < PRECISIONS.get(quantization, 0):
            log.warning(
                "model.quantization_lowered", model=spec.id, declared=quantization, listed=runs_as
            )
            quantization = runs_as
    return replace(
        spec,
        max_model_len=max_model_len,
        max_output_tokens=spec.max_output_tokens and min(spec.max_output_tokens, max_model_len),
        max_num_seqs=min(spec.max_num_seqs, info.max_num_seqs),
        quantization=quantization,
        unsupported_params=info.unsupported_params,
    )


@dataclass(frozen=True, slots=True)
class CatalogDiff:
    """What to do so that the new configuration is served, in this order.

    Attributes:
        removed: Drain and close.
        added: Load and list. A model whose weights or limits changed is removed and added.
        changed: Complete again and exchange the spec in place; nothing is loaded.
    """

    removed: tuple[ModelSpec, ...]
    added: tuple[ModelSpec, ...]
    changed: tuple[ModelSpec, ...]


def diff(old: Sequence[ModelSpec], new: Sequence[ModelSpec]) -> CatalogDiff:
    """Compare two configurations, both as `specs_from_settings` gives them."""
    before = {spec.id: spec for spec in old}
    after = {spec.id: spec for spec in new}
    stays = {
        name
        for name in before.keys() & after.keys()
        if all(getattr(before[name], key) == getattr(after[name], key) for key in _LOADED)
    }
    return CatalogDiff(
        removed=tuple(spec for spec in old if spec.id not in stays),
        added=tuple(spec for spec in new if spec.id not in stays),
        changed=tuple(spec for spec in new if spec.id in stays and spec != before[spec.id]),
    )


def _from_table(model: ModelSettings) -> ModelSpec:
    values = {
        field.name: getattr(model, field.name)
        for field in fields(ModelSpec)
        if field.name in ModelSettings.model_fields
    }
    values["max_model_len"] = model.max_model_len or 0
    values["rate_limits"] = RateLimits(**model.limits.model_dump())
    values["capacity"] = Capacity(**model.capacity.model_dump())
    values["card"] = _card(model.card)
    return ModelSpec(**values, prices=_prices(model.pricing))


def _card(card: CardSettings) -> ModelCard:
    values = card.model_dump()
    values["examples"] = tuple(CardExample(**table) for table in values["examples"])
    values["recommendations"] = tuple(
        CardRecommendation(**table) for table in values["recommendations"]
    )
    values["measurements"] = tuple(CardMeasurement(**table) for table in values["measurements"])
    return ModelCard(**values)


def _prices(pricing: PricingSettings) -> Prices:
    version = pricing.version or Prices().version
    base = Prices(**_amounts(pricing), version=version)
    tiers = tuple(
        PriceTier(min_prompt_tokens=tier.min_prompt_tokens, prices=replace(base, **_amounts(tier)))
        for tier in pricing.tiers
    )
    windows = tuple(
        PriceWindow(
            utc_start=window.utc_start,
            utc_end=window.utc_end,
            prices=replace(base, **_amounts(window)),
        )
        for window in pricing.windows
    )
    return replace(base, tiers=tiers, windows=windows)


def _amounts(table: BaseModel) -> dict[str, Any]:  # decimals by the names of `Prices`
    return {
        name: Decimal(amount) for name, amount in table if name in _AMOUNTS and amount is not None
    }


@dataclass(frozen=True, slots=True)
class _Folder:
    """What the files of a model folder say.

    Attributes:
        max_len: Positions the model was built for.
        default_len: The least limit any file names.
    """

    max_len: int | None
    default_len: int
    eos_token_ids: frozenset[int]
    family: str | None
    quantization: str | None
    created: int

    @classmethod
    def read(cls, folder: Path) -> "_Folder":
        config = _read_json(folder / "config.json")
        config = {**config, **_table(config, "text_config")}  # multimodal models nest the decoder
        generation = _read_json(folder / "generation_config.json")
        tokenizer = _read_json(folder / "tokenizer_config.json")
        genai = _read_json(folder / "genai_config.json")
        genai_model = _table(genai, "model")
        built_for = _lengths(
            config.get("max_position_embeddings"),
            config.get("n_positions"),
            genai_model.get("context_length"),
        )
        advised = _lengths(
            tokenizer.get("model_max_length"), _table(genai, "search").get("max_length")
        )
        stamp = folder / "config.json"
        return cls(
            max_len=min(built_for, default=None),
            default_len=min(built_for + advised, default=FALLBACK_MODEL_LEN),
            eos_token_ids=frozenset(
                _ids(generation.get("eos_token_id")) or _ids(config.get("eos_token_id"))
            )
            | _ids(genai_model.get("eos_token_id"))
            | _eos_of_tokenizer(tokenizer),
            family=config.get("model_type") or genai_model.get("type"),
            quantization=_quantization(_table(config, "quantization_config")),
            created=int((stamp if stamp.exists() else folder).stat().st_mtime),
        )


def _read_json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"cannot read {path}: {error}") from error
    if not isinstance(values, dict):
        raise ConfigurationError(f"cannot read {path}: it holds no JSON object")
    return values


def _table(values: Mapping[str, Any], key: str) -> dict[str, Any]:
    table = values.get(key)
    return table if isinstance(table, dict) else {}


def _lengths(*found: object) -> list[int]:
    return [int(n) for n in found if isinstance(n, int | float) and 0 < n < NO_LIMIT]


def _ids(value: object) -> frozenset[int]:
    items = value if isinstance(value, list) else [value]
    return frozenset(item for item in items if isinstance(item, int))


def _eos_of_tokenizer(tokenizer: Mapping[str, Any]) -> frozenset[int]:
    """The id of `eos_token`, which is a string or an object, in the table of added tokens."""
    eos = tokenizer.get("eos_token")
    text = eos.get("content") if isinstance(eos, dict) else eos
    added = _table(tokenizer, "added_tokens_decoder")
    return frozenset(
        int(token_id)
        for token_id, token in added.items()
        if isinstance(token, dict) and text is not None and token.get("content") == text
    )


def _quantization(config: Mapping[str, Any]) -> str | None:
    bits = config.get("bits") or (8 if config.get("load_in_8bit") else None)
    name = "fp8" if config.get("quant_method") == "fp8" else f"int{bits}"
    return name if name in PRECISIONS else None
