"""From configuration and model folder to what is listed and served."""

import json
import os
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest

from provider_core import ConfigurationError, ModelSpec, Prices, RunnerInfo, hookimpl
from provider_core.catalog import (
    FALLBACK_MODEL_LEN,
    CatalogDiff,
    apply_runner_info,
    complete_spec,
    default_id,
    diff,
    specs_from_settings,
)
from provider_core.model_settings import ModelSettings, PricingSettings
from provider_core.plugins import PluginManager
from provider_core.settings import Settings

SPEC = ModelSpec(id="tiny", source="/models/tiny")


def folder_with(tmp_path: Path, **files: object) -> Path:
    """A model folder; a keyword `config` becomes `config.json`."""
    for name, content in files.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    return tmp_path


def specs(
    *models: ModelSettings, model: tuple[str, ...] = (), backend: str | None = None
) -> list[ModelSpec]:
    """What these settings ask to serve when no plugin offers anything."""
    settings = Settings(models=models, model=model, backend=backend)
    return specs_from_settings(settings, PluginManager())


def test_a_table_becomes_a_spec() -> None:
    """Facts are taken over, prices become exact decimals."""
    table = ModelSettings(
        id="acme/tiny",
        source="/m",
        aliases=("tiny",),
        max_model_len=128,
        options={"threads": 2},
        pricing=PricingSettings(prompt="0.0000002", input_cache_read="0.00000005", version="v1"),
    )

    (spec,) = specs(table)

    assert (spec.id, spec.source, spec.aliases) == ("acme/tiny", "/m", ("tiny",))
    assert (spec.max_model_len, spec.options) == (128, {"threads": 2})
    assert spec.prices.prompt == Decimal("0.0000002")
    assert spec.prices.input_cache_read == Decimal("0.00000005")
    assert spec.prices.input_cache_write is None
    assert spec.prices.version == "v1"


def test_prices_without_a_version_are_unversioned() -> None:
    """Billing then names them by their digest."""
    (spec,) = specs(ModelSettings(id="a", source="a", pricing=PricingSettings(prompt="0.1")))

    assert spec.prices == Prices(prompt=Decimal("0.1"))


def test_the_command_line_adds_to_the_file() -> None:
    """`--model` is served after the tables, under the folder's name."""
    listed = specs(ModelSettings(id="a", source="/a"), model=("/models/b", "s3://bucket/x/c/"))

    assert [spec.id for spec in listed] == ["a", "b", "c"]


def test_the_backend_setting_is_for_models_that_name_none() -> None:
    """`--backend` does not override a table."""
    tables = (ModelSettings(id="a", source="/a", backend="own"), ModelSettings(id="b", source="/b"))

    assert [spec.backend for spec in specs(*tables, backend="default")] == ["own", "default"]


@pytest.mark.parametrize("build", [False, True])
def test_the_operator_decides_what_is_built(*, build: bool) -> None:
    """`--build` is for every model; backends build nothing unless it is given."""
    plugins = PluginManager()
    plugins.register(Offer())

    (spec,) = specs_from_settings(Settings(build=build), plugins)

    assert spec.may_build is build


def test_plugins_offer_models_when_nothing_is_configured() -> None:
    """Without tables and `--model`, the answers of `register_models` are served."""
    plugins = PluginManager()
    plugins.register(Offer())

    assert specs_from_settings(Settings(), plugins) == [SPEC]


def test_the_backend_setting_is_for_offered_models_too() -> None:
    """`provider serve --backend X` loads the built-in model with X."""
    plugins = PluginManager()
    plugins.register(Offer())

    (spec,) = specs_from_settings(Settings(backend="default"), plugins)

    assert spec == replace(SPEC, backend="default")


def test_configured_models_silence_offers() -> None:
    """Whoever names a model gets that model only."""
    plugins = PluginManager()
    plugins.register(Offer())

    listed = specs_from_settings(Settings(model=("/models/b",)), plugins)

    assert [spec.id for spec in listed] == ["b"]


def test_nothing_to_serve_is_an_error() -> None:
    """The message says the three ways to name a model."""
    with pytest.raises(ConfigurationError, match="--model FOLDER, PROVIDER_MODEL or a"):
        specs()


@pytest.mark.parametrize(
    "second",
    [
        ModelSettings(id="a", source="/b"),
        ModelSettings(id="b", source="/b", aliases=("a",)),
        ModelSettings(id="b", source="/b", aliases=("alias",)),
        ModelSettings(id="alias", source="/b"),
        ModelSettings(id="b", source="/b", aliases=("b",)),
    ],
)
def test_a_name_means_one_model(second: ModelSettings) -> None:
    """Ids and aliases share one name space."""
    with pytest.raises(ConfigurationError, match="is given to the models"):
        specs(ModelSettings(id="a", source="/a", aliases=("alias",)), second)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("hf://acme/tiny", "tiny"),
        ("hf://acme/tiny@refs/pr/1", "tiny"),
        ("/models/tiny/", "tiny"),
        ("s3://bucket/models/tiny/?versionId=3", "tiny"),
        ("hf://org/tiny%2B", "tiny+"),
        ("file:///models/tiny", "tiny"),
    ],
)
def test_the_default_id_is_the_last_part(source: str, expected: str) -> None:
    """A model without a table is called as its folder."""
    assert default_id(source) == expected


def test_a_relative_folder_is_named_as_it_really_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`--model .` has the name of the working directory."""
    monkeypatch.chdir(tmp_path)

    assert default_id(".") == tmp_path.name


@pytest.mark.parametrize("source", ["/", "s3://bucket", "/models/my model"])
def test_a_source_without_a_usable_name_is_an_error(source: str) -> None:
    """Nothing is served under an empty name or one with spaces."""
    with pytest.raises(ConfigurationError, match="gives no id"):
        default_id(source)


@pytest.mark.parametrize(
    "source",
    [
        "s3://AKIA:canary@bucket/tiny",
        "s3://AKIA:with/slash/canary@bucket/tiny",
        "hf://me:canary@org/tiny",
        "ftp://canary@host/tiny",
    ],
)
def test_a_source_with_a_password_is_refused_unprinted(source: str) -> None:
    """Of whatever kind it is, wherever it stands."""
    for given in ({"model": (source,)}, {"models": (ModelSettings(id="a", source=source),)}):
        with pytest.raises(ConfigurationError, match="must hold no password") as failure:
            specs_from_settings(Settings.model_validate(given), PluginManager())
        assert "canary" not in str(failure.value)


@pytest.mark.parametrize("source", ["hf://org/tiny@v1", "https://h:8443/p@v2/", "models/a:b@c"])
def test_an_at_sign_further_on_is_none(source: str) -> None:
    """Revisions have one, and folders may."""
    assert specs(ModelSettings(id="a", source=source))[0].source == source


def test_an_empty_folder_gets_the_fallbacks(tmp_path: Path) -> None:
    """A folder that says nothing has the general limit, no end of text and no claims."""
    os.utime(tmp_path, (1000, 1000))

    assert complete_spec(SPEC, tmp_path) == replace(
        SPEC, name="tiny", created=1000, max_model_len=FALLBACK_MODEL_LEN
    )


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"config": {"max_position_embeddings": 2048}}, 2048),
        ({"config": {"n_positions": 1024}}, 1024),
        ({"config": {"text_config": {"max_position_embeddings": 512}}}, 512),
        ({"tokenizer_config": {"model_max_length": 300}}, 300),
        ({"tokenizer_config": {"model_max_length": 1e30}}, FALLBACK_MODEL_LEN),
        ({"genai_config": {"model": {"context_length": 900}}}, 900),
        (
            {
                "config": {"max_position_embeddings": 2048},
                "genai_config": {
                    "model": {"context_length": 2048},
                    "search": {"max_length": 700},
                },
            },
            700,
        ),
    ],
)
def test_the_length_is_the_least_the_folder_names(
    files: dict[str, object], expected: int, tmp_path: Path
) -> None:
    """Whatever file knows a limit is believed; the tokenizer's huge number is none."""
    assert complete_spec(SPEC, folder_with(tmp_path, **files)).max_model_len == expected


def test_a_configured_length_wins(tmp_path: Path) -> None:
    """Advice (a default length) can be exceeded up to what the model was built for."""
    folder = folder_with(
        tmp_path,
        config={"max_position_embeddings": 2048},
        tokenizer_config={"model_max_length": 512},
    )

    assert complete_spec(replace(SPEC, max_model_len=2048), folder).max_model_len == 2048


def test_a_length_the_model_was_not_built_for_is_refused(tmp_path: Path) -> None:
    """Positions that were never trained, or do not exist in the graph, are a mistake."""
    folder = folder_with(tmp_path, config={"max_position_embeddings": 2048})

    with pytest.raises(ConfigurationError, match="is 2049, over the 2048 its folder allows"):
        complete_spec(replace(SPEC, max_model_len=2049), folder)


def test_an_output_longer_than_the_context_is_refused(tmp_path: Path) -> None:
    """`max_output_tokens` has to fit."""
    with pytest.raises(ConfigurationError, match="max_output_tokens of model 'tiny' is 4097"):
        complete_spec(replace(SPEC, max_output_tokens=4097), tmp_path)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"config": {"eos_token_id": 2}}, {2}),
        ({"config": {"eos_token_id": 2}, "generation_config": {"eos_token_id": [3, 4]}}, {3, 4}),
        ({"genai_config": {"model": {"eos_token_id": [5]}}}, {5}),
        (
            {
                "config": {"eos_token_id": 2},
                "tokenizer_config": {
                    "eos_token": "<|im_end|>",
                    "added_tokens_decoder": {
                        "7": {"content": "<|im_end|>"},
                        "8": {"content": "<|im_start|>"},
                    },
                },
            },
            {2, 7},
        ),
        (
            {
                "tokenizer_config": {
                    "eos_token": {"content": "</s>"},
                    "added_tokens_decoder": {"1": {"content": "</s>"}},
                }
            },
            {1},
        ),
        ({"config": {"eos_token_id": None}, "tokenizer_config": {"eos_token": None}}, set()),
    ],
)
def test_ends_of_text_are_collected(
    files: dict[str, object], expected: set[int], tmp_path: Path
) -> None:
    """A chat model often ends turns with another token than its base model ended texts."""
    assert complete_spec(SPEC, folder_with(tmp_path, **files)).eos_token_ids == expected


def test_the_folder_dates_and_names_the_family(tmp_path: Path) -> None:
    """`created` is the age of the configuration file, the family its `model_type`."""
    folder = folder_with(tmp_path, config={"model_type": "qwen3"})
    os.utime(folder / "config.json", (1000, 1000))

    spec = complete_spec(SPEC, folder)

    assert (spec.created, spec.family) == (1000, "qwen3")


@pytest.mark.parametrize("text", ["{", "[]", "\udcff"])
def test_a_broken_file_is_named(text: str, tmp_path: Path) -> None:
    """The message says which file of the folder cannot be read."""
    (tmp_path / "config.json").write_bytes(text.encode("utf-8", "surrogateescape"))

    with pytest.raises(ConfigurationError, match=r"config\.json"):
        complete_spec(SPEC, tmp_path)


def runner_info(**facts: object) -> RunnerInfo:
    """Facts of a runner, the given ones changed."""
    info = RunnerInfo(
        backend="scripted",
        backend_version="1",
        device="cpu",
        max_num_seqs=8,
        max_model_len=1024,
        vocab_size=10,
    )
    return replace(info, **facts)  # type: ignore[arg-type]  # any field


def test_a_smaller_runner_cuts_the_spec_down() -> None:
    """Nothing is listed that the runner cannot do."""
    spec = replace(SPEC, max_model_len=2048, max_output_tokens=1500, max_num_seqs=32)

    cut = apply_runner_info(spec, runner_info())

    assert (cut.max_model_len, cut.max_output_tokens, cut.max_num_seqs) == (1024, 1024, 8)


def test_a_larger_runner_changes_nothing() -> None:
    """Configured limits stay."""
    spec = replace(SPEC, max_model_len=512, max_num_seqs=4)

    assert apply_runner_info(spec, runner_info()) == spec


def test_diff_of_the_same_is_empty() -> None:
    """A file that was only touched asks for nothing."""
    assert diff([SPEC], [replace(SPEC)]) == CatalogDiff((), (), ())


def test_diff_tells_added_from_removed() -> None:
    """Models that appear and disappear do so in order."""
    a, b, c = (replace(SPEC, id=name) for name in "abc")

    assert diff([a, b], [b, c]) == CatalogDiff(removed=(a,), added=(c,), changed=())


@pytest.mark.parametrize("change", [{"is_ready": False}, {"aliases": ("x",)}, {"name": "Tiny"}])
def test_facts_change_in_place(change: dict[str, object]) -> None:
    """Readiness, names and prices need no loading."""
    new = replace(SPEC, **change)  # type: ignore[arg-type]  # any field

    assert diff([SPEC], [new]) == CatalogDiff(removed=(), added=(), changed=(new,))


@pytest.mark.parametrize(
    "change", [{"source": "/other"}, {"max_num_seqs": 2}, {"options": {"threads": 1}}]
)
def test_other_weights_or_limits_load_anew(change: dict[str, object]) -> None:
    """What the runner was built with is removed and added."""
    new = replace(SPEC, **change)  # type: ignore[arg-type]  # any field

    assert diff([SPEC], [new]) == CatalogDiff(removed=(SPEC,), added=(new,), changed=())


class Offer:
    """A plugin with one model."""

    @hookimpl
    def register_models(self) -> list[ModelSpec]:
        """Offer the model."""
        return [SPEC]
