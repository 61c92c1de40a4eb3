"""Settings of plugins: what the environment and a model's options say, and what is wrong there."""

from inspect import signature
from pathlib import Path

import pytest
from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

import provider_genai
import provider_onnxruntime
import provider_tensorrt
import provider_upstream
from provider_core import ConfigurationError, ModelSpec
from provider_core.plugin_settings import read_backend_settings, read_plugin_settings

PREFIX = "PROVIDER_ACME_"


class Settings(BaseSettings):
    """A plugin's own."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_ignore_empty=True, extra="forbid")

    url: str = Field(pattern="^https://")
    num_threads: int = Field(1, ge=1)
    weights: tuple[float, ...] = (1.0,)


def test_the_environment_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it does not say is as by default, and so is what it leaves empty."""
    monkeypatch.setenv(f"{PREFIX}URL", "https://a")
    monkeypatch.setenv(f"{PREFIX}NUM_THREADS", "")

    settings = read_plugin_settings(Settings)

    assert (settings.url, settings.num_threads) == ("https://a", 1)


def test_a_models_options_win(monkeypatch: pytest.MonkeyPatch) -> None:
    """Over the environment, which is for all models."""
    monkeypatch.setenv(f"{PREFIX}URL", "https://a")
    monkeypatch.setenv(f"{PREFIX}NUM_THREADS", "2")

    settings = read_backend_settings("acme", Settings, {"num_threads": 3})

    assert (settings.url, settings.num_threads) == ("https://a", 3)


@pytest.mark.parametrize("value", ["", "1"])
def test_a_slip_in_a_variable_is_refused(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    """It would be passed over, and something else be done than was meant."""
    monkeypatch.setenv(f"{PREFIX}URL", "https://a")
    monkeypatch.setenv(f"{PREFIX}NUM_THREAD", value)
    if not value:  # that is unset
        assert read_plugin_settings(Settings).num_threads == 1
        return

    with pytest.raises(ConfigurationError, match=r"^PROVIDER_ACME_NUM_THREAD is no variable of"):
        read_plugin_settings(Settings)
    with pytest.raises(ConfigurationError, match=r"^PROVIDER_ACME_NUM_THREAD is no variable of"):
        read_backend_settings("acme", Settings, {})


def test_variables_of_others_are_theirs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the server's own, say, or of a plugin whose name begins alike."""
    monkeypatch.setenv(f"{PREFIX}URL", "https://a")
    monkeypatch.setenv("PROVIDER_ACMEX_URL", "x")
    monkeypatch.setenv("URL", "x")

    assert read_plugin_settings(Settings).url == "https://a"


LINKS = {
    "SERVICE_HOST": "10.0.0.7",
    "SERVICE_PORT": "6379",
    "SERVICE_PORT_CLIENT": "6379",
    "PORT": "tcp://10.0.0.7:6379",
    "PORT_6379_TCP": "tcp://10.0.0.7:6379",
    "PORT_6379_TCP_PROTO": "tcp",
    "PORT_6379_TCP_PORT": "6379",
    "PORT_6379_TCP_ADDR": "10.0.0.7",
}


@pytest.mark.parametrize("service", ["", "PRIMARY_"])
def test_links_of_a_service_are_no_settings(monkeypatch: pytest.MonkeyPatch, service: str) -> None:
    """Kubernetes makes them for one called provider-acme, or provider-acme-primary."""
    monkeypatch.setenv(f"{PREFIX}URL", "https://a")
    for name, value in LINKS.items():
        monkeypatch.setenv(PREFIX + service + name, value)

    assert read_plugin_settings(Settings).url == "https://a"
    assert read_backend_settings("acme", Settings, {}).url == "https://a"


@pytest.mark.parametrize("name", ["PORT", "PORT_6379_TCP"])
def test_a_port_that_is_no_link_is_refused(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """A person set it."""
    monkeypatch.setenv(f"{PREFIX}URL", "https://a")
    monkeypatch.setenv(PREFIX + name, "6379")

    with pytest.raises(ConfigurationError, match=f"^{PREFIX}{name} is no variable of"):
        read_plugin_settings(Settings)


@pytest.mark.parametrize("name", ["num_thread", "NUM_THREADS", "_env_file", "_secrets_dir"])
def test_an_option_that_is_none_is_named(name: str) -> None:
    """With those that there are; what pydantic takes beside fields is no option."""
    options = {"url": "https://a", name: "2"}

    with pytest.raises(
        ConfigurationError, match=f"^acme option '{name}' is not one of url, num_threads, weights$"
    ):
        read_backend_settings("acme", Settings, options)


@pytest.mark.parametrize(
    ("variables", "name"),
    [
        ({}, "URL"),
        ({"URL": "http://a-secret"}, "URL"),
        ({"URL": "https://a", "NUM_THREADS": "a-secret"}, "NUM_THREADS"),
        ({"URL": "https://a", "WEIGHTS": '[1, "a-secret"]'}, "WEIGHTS.1"),
    ],
)
def test_a_mistake_is_named_and_not_shown(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], name: str
) -> None:
    """One line; by the variable, or for a backend by the option."""
    for variable, value in variables.items():
        monkeypatch.setenv(PREFIX + variable, value)

    with pytest.raises(ConfigurationError, match=f"^PROVIDER_ACME_{name}: .") as of_plugin:
        read_plugin_settings(Settings)
    with pytest.raises(ConfigurationError, match=f"^acme option {name.lower()}: .") as of_backend:
        read_backend_settings("acme", Settings, {})

    for refused in (of_plugin, of_backend):
        assert "a-secret" not in refused.value.message
        assert refused.value.__cause__ is None
        assert refused.value.__suppress_context__


def test_what_is_no_json_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a field holds several values."""
    monkeypatch.setenv(f"{PREFIX}WEIGHTS", "a-secret")

    with pytest.raises(ConfigurationError, match=r"^PROVIDER_ACME_\*: .*weights") as refused:
        read_plugin_settings(Settings)

    assert "a-secret" not in refused.value.message


def test_an_options_mistake_is_named() -> None:
    """Of several the first."""
    with pytest.raises(ConfigurationError, match=r"^acme option num_threads: .*greater than"):
        read_backend_settings("acme", Settings, {"url": "https://a", "num_threads": 0})


BACKENDS = {
    "genai": provider_genai,
    "onnxruntime": provider_onnxruntime,
    "tensorrt": provider_tensorrt,
    "upstream": provider_upstream,
}


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_backends_that_come_along_read_theirs_so(
    backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before they look into a model's files, of which these are none."""
    (tmp_path / "model.onnx").touch()
    model = ModelSpec(id="x", source="", backend=backend, options={"nope": 1})
    load_model = BACKENDS[backend].load_model
    arguments = {"model": model, "model_dir": tmp_path, "report": print}
    wanted = {name: arguments[name] for name in signature(load_model).parameters}

    with pytest.raises(ConfigurationError, match=f"^{backend} option 'nope' is not one of "):
        load_model(**wanted)
    variable = f"PROVIDER_{backend.upper()}_NOPE"
    monkeypatch.setenv(variable, "1")
    with pytest.raises(ConfigurationError, match=f"^{variable} is no variable of this backend$"):
        load_model(**wanted)
