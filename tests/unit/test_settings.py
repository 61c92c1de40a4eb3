"""Where settings come from, which source wins, and what a mistake in one says."""

from pathlib import Path

import pytest
from pydantic import BaseModel

from provider_core.errors import ConfigurationError
from provider_core.settings import (
    LimitSettings,
    ProviderSettings,
    Settings,
    ignored_variables,
    load_settings,
)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(folder: Path, text: str, name: str = "provider.toml") -> Path:
    """Write a configuration file."""
    path = folder / name
    path.write_text(text)
    return path


def failure(**overrides: object) -> str:
    """The message of the error that loading the settings raises."""
    with pytest.raises(ConfigurationError) as raised:
        load_settings(**overrides)
    return raised.value.message


def test_every_source_absent_gives_the_defaults() -> None:
    """Without a file, a variable or an option every setting has its default."""
    assert load_settings() == Settings()


def test_stronger_sources_win(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command line beats the environment, which beats the file, which beats the default."""
    write(folder, 'host = "file"\nbackend = "file"\nplatform = "file"\n')
    monkeypatch.setenv("PROVIDER_HOST", "environment")
    monkeypatch.setenv("PROVIDER_BACKEND", "environment")

    settings = load_settings(host="option")

    assert (settings.host, settings.backend, settings.platform, settings.port) == (
        "option",
        "environment",
        "file",
        8000,
    )


def test_tables_merge_key_by_key(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable that sets one key of a table leaves the file's other keys alone."""
    write(folder, "[limits]\nmax_n = 3\nmax_prompts = 4\n")
    monkeypatch.setenv("PROVIDER_LIMITS__MAX_N", "5")

    assert load_settings().limits == LimitSettings(max_n=5, max_prompts=4)


def test_an_empty_variable_is_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    """Platforms that pass every variable of a form, filled in or not, change nothing."""
    monkeypatch.setenv("PROVIDER_API_KEY", "")

    assert load_settings().api_key is None


@pytest.mark.parametrize(
    ("variable", "value", "expected"),
    [
        ("PROVIDER_MODEL", "a, s3://b/c ,", ("a", "s3://b/c")),
        ("PROVIDER_PLUGINS", "one,two", ("one", "two")),
    ],
)
def test_lists_are_comma_separated_in_the_environment(
    variable: str, value: str, expected: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Spaces and empty items between commas mean nothing."""
    monkeypatch.setenv(variable, value)

    assert getattr(load_settings(), variable.removeprefix("PROVIDER_").lower()) == expected


def test_a_nested_list_is_comma_separated_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """A list inside a table is written in a variable as one at the top is."""
    monkeypatch.setenv("PROVIDER_SERVER__CORS_ORIGINS", "https://a.example,https://b.example")

    assert load_settings().server.cors_origins == ("https://a.example", "https://b.example")


def test_model_tables_are_read_in_order(folder: Path) -> None:
    """`[[model]]` may be repeated and each has its own prices."""
    write(
        folder,
        '[[model]]\nid = "a"\nsource = "/a"\n[model.pricing]\nprompt = "0.1"\n'
        '[[model]]\nid = "b"\nsource = "hf://b"\n',
    )

    models = load_settings().models

    assert [(m.id, m.source, m.pricing.prompt) for m in models] == [
        ("a", "/a", "0.1"),
        ("b", "hf://b", "0"),
    ]


def test_models_can_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """A container without a file takes its `[[model]]` tables as JSON."""
    monkeypatch.setenv("PROVIDER_MODELS", '[{"id": "a", "source": "/a"}]')

    assert [model.id for model in load_settings().models] == ["a"]


def test_relative_folders_are_relative_to_the_file(folder: Path) -> None:
    """The same file means the same folders from wherever the server is started."""
    nested = folder / "etc"
    nested.mkdir()
    path = write(nested, 'data_dir = "data"\n[[model]]\nid = "a"\nsource = "models/a"\n')

    settings = load_settings(config=path)

    assert settings.models[0].source == str(nested / "models/a")
    assert settings.data_dir == nested / "data"


def test_top_level_model_names_folders(folder: Path) -> None:
    """`model` with folders instead of tables is `--model` written down."""
    path = write(folder, 'model = ["a", "s3://b"]\n', "other.toml")

    assert load_settings(config=path).model == (str(folder / "a"), "s3://b")


def test_config_says_which_file_was_read(folder: Path) -> None:
    """The default file is found in the working directory and remembered for reloading."""
    write(folder, "port = 1\n")

    assert load_settings().config == Path("provider.toml")


def test_config_in_the_environment_replaces_the_default_file(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`PROVIDER_CONFIG` names the only file that is read."""
    write(folder, "port = 1\n")
    monkeypatch.setenv("PROVIDER_CONFIG", str(write(folder, "port = 2\n", "other.toml")))

    assert load_settings().port == 2


def test_a_named_file_must_exist(folder: Path) -> None:
    """A typo in `--config` is not a server with defaults."""
    assert str(folder / "absent.toml") in failure(config=folder / "absent.toml")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("hots = 1\n", "hots in provider.toml: unknown key"),
        ("[limits]\nmax_m = 1\n", "limits.max_m in provider.toml: unknown key"),
        ('[[model]]\nid = "a"\nsource = "a"\nx = 1\n', "model[0].x in provider.toml: unknown key"),
        ("models = []\n", "models in provider.toml: unknown key"),
        ('config = "x"\n', "config in provider.toml: unknown key"),
        ('[[model]]\nid = "a"\n', "model[0].source in provider.toml: is required"),
        ('model = [{}, "a"]\n', "model[1] in provider.toml: input should be a valid dictionary"),
        ('[model]\nid = "a"\n', "model in provider.toml: write [[model]], in double brackets"),
        ("model = 3\n", "model[0] in provider.toml: input should be a valid string, got int"),
    ],
)
def test_unknown_and_missing_keys_are_named(folder: Path, text: str, expected: str) -> None:
    """A mistyped key is an error that names the key and the file."""
    write(folder, text)

    assert expected in failure()


@pytest.mark.parametrize("price", ["0.5", "1", "1e-7"])
def test_a_price_must_be_a_string(folder: Path, price: str) -> None:
    """A float price would not be exact; the message says how to write it."""
    write(folder, f'[[model]]\nid = "a"\nsource = "a"\n[model.pricing]\nprompt = {price}\n')

    message = failure()

    assert "model[0].pricing.prompt in provider.toml: write the price as a string" in message


@pytest.mark.parametrize(
    "price", ["-1", "1e-7", "01", "1.", "NaN", "", " 1", "0.0000000000000000001"]
)
def test_a_price_is_digits_with_a_fraction(folder: Path, price: str) -> None:
    """Signs, exponents and more than 18 places are refused."""
    write(folder, f'[[model]]\nid = "a"\nsource = "a"\n[model.pricing]\nimage = "{price}"\n')

    assert "model[0].pricing.image in provider.toml: string should match" in failure()


def test_an_invalid_value_names_setting_kind_and_source(monkeypatch: pytest.MonkeyPatch) -> None:
    """The message says what to change and where it was set."""
    monkeypatch.setenv("PROVIDER_LIMITS__MAX_BODY_BYTES", "many")

    message = failure()

    assert message.startswith("limits.max_body_bytes in the environment: input should be a valid")
    assert message.endswith("got str")


def test_all_mistakes_are_reported_at_once(folder: Path) -> None:
    """Nobody should have to start the server once per mistake."""
    write(folder, "hots = 1\n")

    message = failure(port=99999)

    assert "port in the command line" in message
    assert "hots in provider.toml" in message


def test_values_are_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """A refused value may be a secret pasted into the wrong place."""
    monkeypatch.setenv("PROVIDER_API_KEY", "hunter2")

    with pytest.raises(ConfigurationError) as raised:
        load_settings()

    assert "api_key" in raised.value.message
    assert "hunter2" not in raised.value.message
    assert raised.value.__cause__ is None


def test_the_key_is_not_in_the_representation() -> None:
    """Settings that end up in a log line or a traceback show no key."""
    assert "sk-secret-1" not in repr(Settings(api_key="sk-secret-1"))


def test_broken_toml_names_the_file(folder: Path) -> None:
    """A syntax error says file and line."""
    write(folder, "port = \n")

    message = failure()

    assert message.startswith("provider.toml is not valid TOML")
    assert "line 1" in message


def test_broken_json_in_the_environment_names_the_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    """A table given whole must be JSON."""
    monkeypatch.setenv("PROVIDER_LIMITS", "{")

    assert "limits" in failure()


@pytest.mark.parametrize("port", ["tcp://10.0.0.7:80", "udp://[fd00::7]:53"])
def test_a_port_that_kubernetes_made_is_none(monkeypatch: pytest.MonkeyPatch, port: str) -> None:
    """What a service called `provider` puts into the containers around it; weaker sources win."""
    made = {"SERVICE_HOST": "10.0.0.7", "SERVICE_PORT": "80", "PORT": port, "PORT_80_TCP": port}
    for name, value in made.items():
        monkeypatch.setenv(f"PROVIDER_{name}", value)

    assert load_settings(platform="kubernetes").host == "0.0.0.0"
    assert load_settings(platform="kubernetes").port == 8000
    assert load_settings(port=9000).port == 9000
    assert ignored_variables() == ("PROVIDER_PORT",)


@pytest.mark.parametrize("port", ["tcp://10.0.0.7", "10.0.0.7:80", "http://10.0.0.7:80"])
def test_any_other_wrong_port_stops_the_start(monkeypatch: pytest.MonkeyPatch, port: str) -> None:
    """Somebody meant something by it."""
    monkeypatch.setenv("PROVIDER_PORT", port)

    assert failure().startswith("port in the environment: ")
    assert ignored_variables() == ()


def test_provider_facts_keep_further_keys(folder: Path) -> None:
    """`[provider]` holds what a listing form asks for, under names of its own."""
    write(folder, '[provider]\nname = "Acme"\nterms_url = "https://acme.example/terms"\n')

    provider = load_settings().provider

    assert (provider.name, provider.slug) == ("Acme", "provider-core")
    assert provider.model_extra == {"terms_url": "https://acme.example/terms"}


@pytest.mark.parametrize(
    ("retention_days", "trains_on_prompts", "collects"),
    [(None, None, None), (0, None, None), (0, False, False), (30, None, True), (0, True, True)],
)
def test_data_is_collected_unless_both_answers_are_no(
    retention_days: float | None,
    trains_on_prompts: bool | None,  # noqa: FBT001 - a parameter of the test
    collects: bool | None,  # noqa: FBT001
) -> None:
    """What a configuration does not say is not known."""
    provider = ProviderSettings(retention_days=retention_days, trains_on_prompts=trains_on_prompts)

    assert provider.collects_data is collects


@pytest.mark.parametrize("value", ["inf", "-inf", "nan"])
def test_every_number_is_finite(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A time without an end, say, would fail in the middle of a request."""
    numbers = [
        f"{table}.{name}"
        for table, owner in Settings.model_fields.items()
        if isinstance(owner.annotation, type) and issubclass(owner.annotation, BaseModel)
        for name, field in owner.annotation.model_fields.items()
        if field.annotation is float
    ]
    assert "engine.target_itl_s" in numbers
    for number in numbers:
        variable = f"PROVIDER_{number.replace('.', '__').upper()}"
        monkeypatch.setenv(variable, value)
        assert number in failure()
        monkeypatch.delenv(variable)
