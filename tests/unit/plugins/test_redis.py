"""The plugin `redis` without a Redis: when it answers, and what its settings refuse."""

import importlib.util
import subprocess
import sys

import pytest

import provider_redis
from provider_core import ConfigurationError
from provider_redis.credit_ledger import RedisCreditLedger
from provider_redis.limit_store import RedisLimitStore
from provider_redis.settings import read_settings

URL = "redis://user:a-secret@127.0.0.1:1/0"


def test_without_a_url_it_declines() -> None:
    """And nothing of it is imported."""
    code = """
import sys, provider_redis
assert provider_redis.make_store("limits") is provider_redis.make_store("credits") is None
assert provider_redis.diagnose() is None
print(*sorted(name for name in sys.modules if name.startswith(("redis", "provider_redis"))))
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == ["provider_redis"]


def test_with_a_url_it_keeps_both(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing connects before it is used."""
    monkeypatch.setenv("PROVIDER_REDIS_URL", URL)
    assert isinstance(provider_redis.make_store("limits"), RedisLimitStore)
    assert isinstance(provider_redis.make_store("credits"), RedisCreditLedger)


def test_credits_may_stay_with_each_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """For a Redis that keeps nothing."""
    monkeypatch.setenv("PROVIDER_REDIS_URL", URL)
    monkeypatch.setenv("PROVIDER_REDIS_CREDITS", "false")
    assert provider_redis.make_store("limits") is not None
    assert provider_redis.make_store("credits") is None


def test_a_missing_client_stops_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the command that installs it."""
    monkeypatch.setenv("PROVIDER_REDIS_URL", URL)
    monkeypatch.setattr(provider_redis, "find_spec", lambda _: None)
    with pytest.raises(ConfigurationError, match=r"provider-core\[redis\]"):
        provider_redis.make_store("limits")
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
        read_settings()
    assert "a-secret" not in str(refused.value)


def test_a_slip_in_a_name_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Or nothing would be shared, and nobody would know."""
    monkeypatch.setenv("PROVIDER_REDIS_ULR", URL)
    with pytest.raises(ConfigurationError, match="PROVIDER_REDIS_ULR is no variable"):
        read_settings()


def test_a_url_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """A10: wherever settings are printed."""
    monkeypatch.setenv("PROVIDER_REDIS_URL", URL)
    assert "a-secret" not in repr(read_settings())
