"""docs/configuration.md is held to the code: every setting, its variable, default and meaning."""

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from provider_core.model_settings import (
    CapacitySettings,
    CardExampleSettings,
    CardMeasurementSettings,
    CardRecommendationSettings,
    CardSettings,
    ModelLimitSettings,
    ModelSettings,
    PriceTierSettings,
    PriceWindowSettings,
    PricingSettings,
)
from provider_core.platforms import ProbeSettings
from provider_core.settings import Settings, load_settings
from provider_lambda.settings import LambdaSettings
from provider_onnxruntime.settings import OnnxRuntimeSettings
from provider_ray.settings import RaySettings
from provider_redis.settings import RedisSettings
from provider_runpod.settings import RunPodSettings
from provider_sagemaker.settings import SageMakerSettings
from provider_tensorrt.settings import TensorRtSettings

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/configuration.md").read_text(encoding="utf-8")
EXAMPLE = re.search(r"```toml\n(.*?)```", PAGE, re.DOTALL)
SHOWN_AS_TABLES = {"models"}  # PROVIDER_MODELS is explained in the text, its keys in a table


def default_of(field: FieldInfo) -> str:
    """A default as the page writes it."""
    if field.is_required():
        return "required"
    if field.default_factory is not None:
        return "see right"
    match field.default:
        case None:
            return "unset"
        case bool(value):
            return f"`{str(value).lower()}`"
        case () | "":
            return "empty"
        case value:
            return f"`{value}`"


def server_rows(table: type[BaseModel], path: tuple[str, ...] = ()) -> Iterator[str]:
    """One row for each scalar setting, nested tables included."""
    for name, field in table.model_fields.items():
        steps = (*path, name)
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from server_rows(field.annotation, steps)
        elif name not in SHOWN_AS_TABLES:
            setting, variable = ".".join(steps), "PROVIDER_" + "__".join(steps).upper()
            yield f"| `{setting}` | `{variable}` | {default_of(field)} | {field.description} |"


def table_rows(table: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """One row for each key of a table of the file that has no variable of its own."""
    for name, field in table.model_fields.items():
        if name not in {"pricing", "capacity", "limits", "card"}:
            yield f"| `{prefix}{name}` | {default_of(field)} | {field.description} |"


def plugin_rows(prefix: str, settings: type[BaseModel]) -> Iterator[str]:
    """One row for each variable of a plugin."""
    for name, field in settings.model_fields.items():
        yield f"| `{prefix}{name.upper()}` | {default_of(field)} | {field.description} |"


ROWS = [
    *server_rows(Settings),
    *table_rows(ModelSettings),
    *table_rows(CapacitySettings, "capacity."),
    *table_rows(ModelLimitSettings, "limits."),
    *table_rows(CardSettings, "card."),
    *table_rows(CardExampleSettings, "card.examples."),
    *table_rows(CardRecommendationSettings, "card.recommendations."),
    *table_rows(CardMeasurementSettings, "card.measurements."),
    *table_rows(PricingSettings, "pricing."),
    *table_rows(PriceTierSettings, "pricing.tiers."),
    *table_rows(PriceWindowSettings, "pricing.windows."),
    *table_rows(ProbeSettings, "probes."),
    *plugin_rows("PROVIDER_ONNXRUNTIME_", OnnxRuntimeSettings),
    *plugin_rows("PROVIDER_RAY_", RaySettings),
    *plugin_rows("PROVIDER_RUNPOD_", RunPodSettings),
    *plugin_rows("PROVIDER_SAGEMAKER_", SageMakerSettings),
    *plugin_rows("PROVIDER_LAMBDA_", LambdaSettings),
    *plugin_rows("PROVIDER_REDIS_", RedisSettings),
    *plugin_rows("PROVIDER_TENSORRT_", TensorRtSettings),
]


@pytest.mark.parametrize("row", ROWS)
def test_every_setting_is_on_the_page(row: str) -> None:
    """Name, variable, default and meaning stand on the page as they are in the code."""
    assert row in PAGE.splitlines()


def test_every_setting_says_what_it_means() -> None:
    """A field without a description would stand on the page as `None`."""
    assert [row for row in ROWS if row.endswith("| None |")] == []


def test_the_page_lists_nothing_else() -> None:
    """A setting that was removed or renamed leaves the page, too."""
    rows = [line for line in PAGE.splitlines() if line.startswith("| `")]

    assert sorted(set(rows) - set(ROWS)) == []


def test_the_example_file_loads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The complete example is a valid configuration."""
    assert EXAMPLE is not None
    monkeypatch.chdir(tmp_path)
    (tmp_path / "provider.toml").write_text(EXAMPLE[1])

    settings = load_settings()

    assert [model.id for model in settings.models] == ["acme/tiny-chat", "acme/small-chat"]


def test_the_example_file_is_complete() -> None:
    """Every table, and every key of a model, occurs in the example."""
    assert EXAMPLE is not None
    shown = tomllib.loads(EXAMPLE[1])
    tables = {
        name
        for name, field in Settings.model_fields.items()
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
    }
    (first, *_) = shown["model"]

    assert tables - shown.keys() == set()
    assert set(ModelSettings.model_fields) - first.keys() == set()
    assert set(PricingSettings.model_fields) - first["pricing"].keys() == set()
    assert set(CapacitySettings.model_fields) - first["capacity"].keys() == set()
    assert set(CardSettings.model_fields) - first["card"].keys() == set()
