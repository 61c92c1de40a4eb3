"""The plugin `redis` without a Redis: when it answers, and what its settings refuse."""

import importlib.util
import subprocess
import sys
import traceback
from decimal import Decimal
from urllib.parse import quote

import pytest
from pydantic import ValidationError

import provider_redis
from provider_core import ConfigurationError, Principal, Unavailable
from provider_core.plugin_settings import read_plugin_settings
from provider_core.settings import Settings
from provider_redis.connection import RedisConnection, RedisFailedError
from provider_redis.credit_ledger import RedisCreditLedger
from provider_redis.limit_store import RedisLimitStore
from provider_redis.settings import RedisSettings

URL = "redis://user:a-secret@127.0.0.1:1/0"


def test_without_a_url_it_declines() -> None:
    """And nothing of it is imported."""
    code = """
import sys, provider_redis
assert provider_redis.make_store("limits", None) is None
assert provider_redis.make_store("credits", None) is None
assert provider_redis.diagnose() is None
print(*sorted(name for name in sys.modules if name.startswith(("redis", "provider_redis"))))
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == ["provider_redis"]


def test_with_a_url_it_keeps_both(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing connects before it is used."""
    monkeypatch.setenv("PROVIDER_REDIS_URL", URL)
    assert isinstance(provider_redis.make_store("limits", Settings()), RedisLimitStore)
    assert isinstance(provider_redis.make_store("credits", Settings()), RedisCreditLedger)


def test_credits_may_stay_with_each_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """For a Redis that keeps nothing."""
    monkeypatch.setenv("PROVIDER_REDIS_URL", URL)
    monkeypatch.setenv("PROVIDER_REDIS_CREDITS", "false")
    assert provider_redis.make_store("limits", Settings()) is not None
    assert provider_redis.make_store("credits", Settings()) is None


def test_a_missing_client_stops_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the command that installs it."""
    monkeypatch.setenv("PROVIDER_REDIS_URL", URL)
    monkeypatch.setattr(provider_redis, "find_spec", lambda _: None)
    with pytest.raises(ConfigurationError, match=r"provider-core\[redis\]"):
        provider_redis.make_store("limits", Settings())
    assert [finding.status for finding in provider_redis.diagnose() or ()] == ["failed"]
    assert importlib.util.find_spec("redis") is not None


@pytest.mark.parametrize(
    ("variable", "value"),
    [("URL", "http://a-secret"), ("PREFIX", "a b"), ("TIMEOUT_S", "0"), ("LEASE_S", "a-secret")],
)
def test_a_wrong_value_is_named_and_not_shown(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    """A URL holds a password."""
    monkeypatch.setenv(f"PROVIDER_REDIS_{variable}", value)
    with pytest.raises(ConfigurationError, match=f"PROVIDER_REDIS_{variable}") as refused:
        read_plugin_settings(RedisSettings)
    assert "a-secret" not in str(refused.value)


@pytest.mark.parametrize("password", ["a-se/cret", "12/34", "a?b", "a#b", "a@b/c", "[a", "a]b"])
def test_a_password_that_would_be_misread_is_refused(
    monkeypatch: pytest.MonkeyPatch, password: str
) -> None:
    """A10: half of it would be a port or a path, which errors quote; written as %.. it is read."""
    monkeypatch.setenv("PROVIDER_REDIS_URL", f"redis://:{password}@127.0.0.1:1/0")
    with pytest.raises(ConfigurationError, match=r"PROVIDER_REDIS_URL: .*%2F") as refused:
        read_plugin_settings(RedisSettings)
    assert password not in str(refused.value)
    with pytest.raises(ValidationError) as invalid:
        RedisSettings()
    assert password not in str(invalid.value)
    monkeypatch.setenv("PROVIDER_REDIS_URL", f"redis://:{quote(password, '')}@127.0.0.1:1/0")
    assert read_plugin_settings(RedisSettings).url is not None


@pytest.mark.parametrize("option", ["db", "unknown"])
async def test_a_url_that_no_client_takes_closes_credits(option: str) -> None:
    """A10: it is no answer of Redis, and a 503 as if it were, without a word of the URL."""
    connection = RedisConnection(RedisSettings(url=f"redis://127.0.0.1:1/?{option}=a-secret"))
    with pytest.raises(RedisFailedError) as failed:
        await connection.command("PING")
    assert "a-secret" not in "".join(traceback.format_exception(failed.value))
    ledger = RedisCreditLedger(connection, event_retention_days=7)
    payer = Principal(api_key_id="key_a", account_id="acme")
    with pytest.raises(Unavailable):
        await ledger.reserve("gen-1", payer, Decimal(1), deadline_s=60)
    await ledger.close()


def test_a_slip_in_a_name_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Or nothing would be shared, and nobody would know."""
    monkeypatch.setenv("PROVIDER_REDIS_ULR", URL)
    with pytest.raises(ConfigurationError, match="PROVIDER_REDIS_ULR is no variable"):
        read_plugin_settings(RedisSettings)


def test_a_url_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """A10: wherever settings are printed."""
    monkeypatch.setenv("PROVIDER_REDIS_URL", URL)
    assert "a-secret" not in repr(read_plugin_settings(RedisSettings))
