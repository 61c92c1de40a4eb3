"""Where a key is looked for, and what is refused at once (threats A1)."""

from pathlib import Path

import pluggy
import pytest
from multidict import CIMultiDict

from provider_core import hookspecs
from provider_core.access import ApiKeyPlugin, KeyStore, extract_key, load_or_mint
from provider_core.errors import AuthenticationFailed


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": "Bearer key-1"},
        {"authorization": "bearer key-1"},
        {"Authorization": "Bearer   key-1 "},
        {"X-API-Key": "key-1"},
        {"x-goog-api-key": "key-1"},
        {"Authorization": "Bearer key-1", "x-api-key": "another"},
        {"x-api-key": "", "x-goog-api-key": "key-1"},
    ],
)
def test_a_key_is_found(headers: dict[str, str]) -> None:
    """Each header that published clients send is read."""
    assert extract_key(CIMultiDict(headers), {}) == "key-1"


@pytest.mark.parametrize(
    "value", ["", "Bearer", "Bearer ", "key-1", "Basic a2V5LTE=", "Token key-1", "Bearerkey-1"]
)
def test_a_malformed_authorization_is_refused(value: str) -> None:
    """Another header does not rescue it."""
    with pytest.raises(AuthenticationFailed, match="Bearer") as failure:
        extract_key(CIMultiDict({"Authorization": value, "x-api-key": "key-1"}), {})
    assert "key-1" not in str(failure.value)


@pytest.mark.parametrize("name", ["Authorization", "x-api-key", "x-goog-api-key"])
def test_a_header_given_twice_is_refused(name: str) -> None:
    """Two keys are no key, even when they are equal."""
    headers = CIMultiDict([(name, "Bearer key-1"), (name.lower(), "Bearer key-1")])
    with pytest.raises(AuthenticationFailed, match="2 times"):
        extract_key(headers, {})


def test_the_query_counts_only_where_it_is_passed() -> None:
    """Routes other than Google's pass an empty query."""
    assert extract_key(CIMultiDict(), {"key": "key-1"}) == "key-1"
    assert extract_key(CIMultiDict(), {"key": ""}) is None
    assert extract_key(CIMultiDict(), {}) is None


def test_a_plain_mapping_will_do() -> None:
    """Handlers of platforms without HTTP bring a dict."""
    assert extract_key({"Authorization": "Bearer key-1"}, {}) == "key-1"


def make_manager(store: KeyStore) -> pluggy.PluginManager:
    """A manager that knows the key plugin only."""
    manager = pluggy.PluginManager("provider_core")
    manager.add_hookspecs(hookspecs)
    manager.register(ApiKeyPlugin(store))
    manager.check_pending()
    return manager


async def test_hook_authenticate(tmp_path: Path) -> None:
    """A known key is a principal, an unknown one an error, none at all is for others to judge."""
    store, key = load_or_mint(tmp_path, None)
    assert key is not None
    hook = make_manager(store).hook
    principal = await hook.authenticate(headers=CIMultiDict({"x-api-key": key}), query={})
    assert principal == await store.authenticate(key)
    with pytest.raises(AuthenticationFailed) as failure:
        await hook.authenticate(headers=CIMultiDict({"x-api-key": "wrong-key"}), query={})
    assert (failure.value.status, failure.value.code) == (401, "invalid_api_key")
    assert "wrong-key" not in str(failure.value)
    assert hook.authenticate(headers=CIMultiDict(), query={}) is None


def test_other_plugins_are_asked_first(tmp_path: Path) -> None:
    """A plugin that knows the caller is not overruled by an unknown API key."""
    marker = pluggy.HookimplMarker("provider_core")

    class Gatekeeper:
        @marker
        def authenticate(self) -> str:
            return "somebody"

    store, _ = load_or_mint(tmp_path, "a fixed key")
    manager = make_manager(store)
    manager.register(Gatekeeper())
    assert manager.hook.authenticate(headers={"x-api-key": "unknown"}, query={}) == "somebody"
