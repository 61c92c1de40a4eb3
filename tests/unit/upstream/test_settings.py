"""How an upstream is named."""

import re
from functools import partial
from pathlib import Path

import pytest

from provider_core import ConfigurationError
from provider_core.plugin_settings import read_backend_settings
from provider_upstream.engine import NEVER
from provider_upstream.settings import UpstreamSettings
from provider_upstream.wire import VLLM_ONLY

URL = "http://10.0.0.7:8000/v1"
read_settings = partial(read_backend_settings, "upstream", UpstreamSettings)


def test_a_url_is_enough() -> None:
    """Everything else has a default; a slash at the end is none of the path."""
    settings = read_settings({"base_url": f"{URL}/"})

    assert settings.url("models") == f"{URL}/models"
    assert settings.headers == {
        "Content-Type": "application/json",
        "Accept-Encoding": "identity",
    }


def test_the_environment_is_read_and_options_win(monkeypatch: pytest.MonkeyPatch) -> None:
    """A key belongs in the environment."""
    monkeypatch.setenv("PROVIDER_UPSTREAM_API_KEY", "sk-secret")
    monkeypatch.setenv("PROVIDER_UPSTREAM_BASE_URL", "http://elsewhere/v1")

    settings = read_settings({"base_url": URL})

    assert settings.base_url == URL
    assert settings.headers["Authorization"] == "Bearer sk-secret"
    assert "sk-secret" not in repr(settings)


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({}, "base_url"),
        ({"base_url": "10.0.0.7:8000"}, "base_url"),
        ({"base_url": "http://user:word@10.0.0.7/v1"}, "base_url"),
        ({"base_url": f"{URL}\nX: y"}, "base_url"),
        ({"base_url": URL, "dialect": "klingon"}, "dialect"),
        ({"base_url": URL, "read_timeout_s": 0}, "read_timeout_s"),
    ],
)
def test_a_mistake_is_named(options: dict[str, object], name: str) -> None:
    """One line, without what was said: it may be a secret."""
    with pytest.raises(ConfigurationError, match=f"upstream option {name}: ") as raised:
        read_settings(options)

    assert "word" not in raised.value.message


def test_the_page_has_every_option() -> None:
    """And no other, each with its default."""
    page = (Path(__file__).parents[3] / "docs/upstream.md").read_text(encoding="utf-8")
    told = dict(re.findall(r"^\| `(\w+)` \| (.*?) \|", page, re.MULTILINE))

    assert told.keys() == UpstreamSettings.model_fields.keys()
    for name, field in UpstreamSettings.model_fields.items():
        if isinstance(field.default, int | float):
            assert told[name] == f"{field.default:g}"


def test_the_page_names_what_is_refused() -> None:
    """An operator reads it before a client does."""
    page = (Path(__file__).parents[3] / "docs/upstream.md").read_text(encoding="utf-8")
    text = " ".join(page.split())
    in_words = {"grammar": "grammars", "prompt_logprobs": "log probabilities of the prompt"}
    names = VLLM_ONLY | NEVER

    assert [name for name in sorted(names) if in_words.get(name, f"`{name}`") not in text] == []


def test_a_keys_last_line_end_is_none_of_it() -> None:
    """Files of keys end in one, and no header may hold it."""
    settings = read_settings({"base_url": URL, "api_key": "sk-secret\n"})

    assert settings.headers["Authorization"] == "Bearer sk-secret"


@pytest.mark.parametrize("key", ["sk-\r\nX-Evil: 1", "sk-schl\u00fcssel", "sk-\x00"])
def test_a_key_that_no_header_can_hold_is_refused(key: str) -> None:
    """At the start, and without repeating it."""
    with pytest.raises(ConfigurationError, match="upstream option api_key: ") as raised:
        read_settings({"base_url": URL, "api_key": key})

    assert "sk-" not in raised.value.message
