"""Settings of handlers, which come from the environment alone."""

import pytest
from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from provider_core.errors import ConfigurationError
from provider_core.server.handler_settings import read_handler_settings


class _Settings(BaseSettings):
    model_config = SettingsConfigDict(env_prefix="PROVIDER_SOMEWHERE_")

    deadline_s: float = Field(60, gt=1)


def test_the_environment_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    """Over the default."""
    assert read_handler_settings(_Settings).deadline_s == 60
    monkeypatch.setenv("PROVIDER_SOMEWHERE_DEADLINE_S", "5")
    assert read_handler_settings(_Settings).deadline_s == 5


def test_a_wrong_value_is_named_and_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be a secret that somebody put into the wrong variable."""
    monkeypatch.setenv("PROVIDER_SOMEWHERE_DEADLINE_S", "canary")
    with pytest.raises(ConfigurationError, match=r"^PROVIDER_SOMEWHERE_DEADLINE_S: ") as failure:
        read_handler_settings(_Settings)
    assert "canary" not in str(failure.value)
