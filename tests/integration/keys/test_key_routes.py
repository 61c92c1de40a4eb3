"""Keys over HTTP: what each may do, and how management keys make and change others."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from provider_core.dialects.openrouter.keys import PAGE_SIZE
from provider_core.server import key_routes
from provider_core.server.body import read_body
from tests.serving import Serving, serving


@pytest.fixture
async def server() -> AsyncIterator[Serving]:
    """Serves one model."""
    async with serving() as server:
        yield server


async def make_key(server: Serving, **facts: Any) -> str:
    """Store a key as the command line does."""
    keys = server.server.keys
    assert keys is not None
    _, secret = await keys.create(**facts)
    return secret


def bearer(secret: str) -> dict[str, Any]:
    """Options of a request that presents a key."""
    return {"headers": {"Authorization": f"Bearer {secret}"}}


async def call(
    server: Serving, method: str, path: str, secret: str, body: Any = None
) -> tuple[int, Any]:
    """Ask a management route; status and JSON."""
    url = f"{server.url}/api/v1/keys{path}"
    async with server.session.request(method, url, json=body, **bearer(secret)) as response:
        return response.status, await response.json()


async def test_a_key_is_made_used_changed_and_revoked(server: Serving) -> None:
    """Its whole life, over HTTP."""
    manager = await make_key(server, scope="management")
    status, made = await call(server, "POST", "", manager, {"name": "app", "limit": 12.5})
    secret, data = made["key"], made["data"]
    assert status == 201
    assert (data["name"], data["limit"], data["limit_remaining"]) == ("app", 12.5, 12.5)
    assert (await server.chat()).status == 200
    answer = await server.post("/v1/chat/completions", CHAT, **bearer(secret))
    assert answer.status == 200
    path = f"/{data['hash']}"
    status, changed = await call(
        server, "PATCH", path, manager, {"limit": 20, "limit_reset": "weekly", "name": "new"}
    )
    assert status == 200
    assert changed["data"]["name"] == "new"
    assert changed["data"]["limit"] == 20
    assert changed["data"]["limit_reset"] == "weekly"
    assert changed["data"]["usage"] == pytest.approx(float(server.usage.events[-1]["cost"]))
    assert await call(server, "GET", path, manager) == (200, changed)
    assert await call(server, "DELETE", path, manager) == (200, {"deleted": True})
    assert (await call(server, "GET", path, manager))[0] == 404
    refused = await server.post("/v1/chat/completions", CHAT, **bearer(secret))
    assert refused.status == 401
    assert (await refused.json())["error"]["code"] == "expired_api_key"


CHAT = {"model": "test-model", "messages": [{"role": "user", "content": "hi"}]}


@pytest.mark.parametrize("scope", ["inference", "management"])
async def test_a_slow_change_revives_no_key(
    server: Serving, monkeypatch: pytest.MonkeyPatch, scope: str
) -> None:
    """It is revoked while its holder sends the body: another key's, or that of the caller."""
    keys = server.server.keys
    assert keys is not None
    manager = await make_key(server, scope="management", account_id="acme")
    await make_key(server, account_id="acme")
    (target,) = [key for key in await keys.select() if key.scope == scope]

    async def read_slowly(*args: Any) -> bytes:
        body = await read_body(*args)
        await keys.revoke(target)
        return body

    monkeypatch.setattr(key_routes, "read_body", read_slowly)
    assert (await call(server, "PATCH", f"/{target.hash}", manager, {"name": "new"}))[0] == 404
    left = await keys.find(target.id)
    assert left is not None
    assert left.revoked_at is not None


async def test_the_secret_is_shown_once(server: Serving) -> None:
    """Neither the list nor the key itself says anything of it."""
    manager = await make_key(server, scope="management")
    _, made = await call(server, "POST", "", manager, {"name": "app"})
    secret_part = made["key"].rsplit("-", 1)[1]
    _, listed = await call(server, "GET", "", manager)
    _, one = await call(server, "GET", f"/{made['data']['hash']}", manager)
    assert secret_part not in str(listed) + str(one) + str(made["data"])
    assert made["data"]["hash"] not in made["key"]


async def test_management_keys_run_nothing(server: Serving) -> None:
    """Whoever steals one can still not spend."""
    manager = await make_key(server, scope="management")
    answer = await server.post("/v1/chat/completions", CHAT, **bearer(manager))
    assert answer.status == 403
    assert (await answer.json())["error"]["type"] == "permission_error"


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", ""), ("POST", ""), ("GET", "/x"), ("PATCH", "/x"), ("DELETE", "/x")],
)
async def test_other_keys_manage_nothing(server: Serving, method: str, path: str) -> None:
    """A customer's key is refused before anything is looked up."""
    status, answer = await call(server, method, path, await make_key(server), {"name": "mine"})
    assert status == 403
    assert answer["error"]["code"] == 403


async def test_a_management_key_of_an_account_sees_its_own_keys_only(server: Serving) -> None:
    """And makes no others."""
    manager = await make_key(server, scope="management", account_id="acme")
    await make_key(server, account_id="other", label="theirs")
    keys = server.server.keys
    assert keys is not None
    (theirs,) = await keys.select("other")
    assert (await call(server, "GET", f"/{theirs.hash}", manager))[0] == 404
    body = {"name": "mine", "account_id": "other"}
    assert (await call(server, "POST", "", manager, body))[0] == 403
    _, made = await call(server, "POST", "", manager, {"name": "mine"})
    assert made["data"]["account_id"] == "acme"
    _, listed = await call(server, "GET", "", manager)
    assert {item["account_id"] for item in listed["data"]} == {"acme"}


async def test_a_key_may_be_bound_to_models(server: Serving) -> None:
    """Every route of every dialect looks."""
    secret = await make_key(server, models="another-model")
    answer = await server.post("/v1/chat/completions", CHAT, **bearer(secret))
    assert answer.status == 403
    assert (await answer.json())["error"]["code"] == "model_not_allowed"
    body = {**CHAT, "max_tokens": 5}
    answer = await server.post("/v1/messages", body, **bearer(secret))
    assert answer.status == 403
    allowed = await make_key(server, models="another-model,test-model")
    assert (await server.post("/v1/messages", body, **bearer(allowed))).status == 200


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "name"),
        ({"name": ""}, "name"),
        ({"name": "x", "limit": -1}, "limit"),
        ({"name": "x", "limit": "10"}, "limit"),
        ({"name": "x", "limit": 10, "limit_reset": "hourly"}, "limit_reset"),
        ({"name": "x", "expires_at": "tomorrow"}, "expires_at"),
        ({"name": "x", "expires_at": "2099-01-01T00:00:00"}, "expires_at"),
        ({"name": "x", "expires_at": "9999-12-31T23:59:59-10:00"}, "expires_at"),
        ({"name": "x", "models": []}, "models"),
        ({"name": "x", "requests_per_minute": 0}, "requests_per_minute"),
        ({"name": "x", "scope": "root"}, "scope"),
    ],
)
async def test_wrong_fields_are_named(server: Serving, body: dict[str, Any], param: str) -> None:
    """And no key is made."""
    manager = await make_key(server, scope="management")
    status, answer = await call(server, "POST", "", manager, body)
    assert status == 400
    assert answer["error"]["metadata"]["param"] == param
    assert len((await call(server, "GET", "", manager))[1]["data"]) == 1


async def test_the_list_has_pages_and_leaves_out_disabled_keys(server: Serving) -> None:
    """Unless they are asked for."""
    manager = await make_key(server, scope="management")
    for _ in range(PAGE_SIZE):
        await make_key(server)
    await make_key(server, disabled=True)
    first = (await call(server, "GET", "", manager))[1]["data"]
    second = (await call(server, "GET", f"?offset={PAGE_SIZE}", manager))[1]["data"]
    everything = await call(server, "GET", f"?offset={PAGE_SIZE}&include_disabled=true", manager)
    assert [len(first), len(second), len(everything[1]["data"])] == [PAGE_SIZE, 1, 2]
    assert (await call(server, "GET", "?offset=-1", manager))[0] == 400


async def test_the_key_route_says_limit_and_expiry(server: Serving) -> None:
    """`GET /key` is what clients and monitors look at."""
    secret = await make_key(
        server, spend_limit="2", spend_reset="daily", expires_at="2099-01-01T00:00:00Z", label="L"
    )
    await server.post("/v1/chat/completions", CHAT, **bearer(secret))
    cost = float(server.usage.events[-1]["cost"])
    async with server.session.get(f"{server.url}/api/v1/key", **bearer(secret)) as response:
        data = (await response.json())["data"]
    assert (data["label"], data["limit"], data["limit_reset"]) == ("L", 2, "daily")
    assert data["limit_remaining"] == pytest.approx(2 - cost)
    assert data["usage_daily"] == pytest.approx(cost)
    assert data["expires_at"] == "2099-01-01T00:00:00Z"
    assert data["is_management_key"] is False
