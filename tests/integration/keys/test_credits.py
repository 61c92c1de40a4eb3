"""Credits over HTTP: who is refused, in which words, and that the sums are those of the bills."""

import asyncio
from decimal import Decimal
from typing import Any

import pytest

from tests.integration.keys.test_limits import CHAT, CHATS
from tests.pause import Pause
from tests.serving import Serving, saying, serving


async def make_key(server: Serving, **facts: Any) -> dict[str, Any]:
    """Options of requests that present a new key."""
    keys = server.server.keys
    assert keys is not None
    _, secret = await keys.create(**facts)
    return {"headers": {"Authorization": f"Bearer {secret}"}}


async def add(server: Serving, usd: str, account_id: str = "acme") -> None:
    """Credit an account."""
    await server.server.credits.add(account_id, Decimal(usd), event_id=f"{account_id}-1")


async def balance(server: Serving) -> tuple[Decimal, Decimal]:
    """What the account has used, and what is reserved."""
    found = await server.server.credits.balance("acme")
    assert found is not None
    return found.used, found.reserved


@pytest.mark.parametrize(
    ("dialect", "status"),
    [("openai", 429), ("openrouter", 402), ("anthropic", 402), ("google", 402)],
)
async def test_an_empty_account_is_refused_in_each_dialect(dialect: str, status: int) -> None:
    """Without a wish to be asked again, and without a bill."""
    path, body = CHATS[dialect]
    async with serving() as server:
        options = await make_key(server, account_id="acme")
        await add(server, "0.000001")
        answer = await server.post(path, body, **options)
        error = (await answer.json())["error"]
        assert server.usage.lines == []
    assert answer.status == status
    assert answer.headers["x-should-retry"] == "false"
    assert "Retry-After" not in answer.headers
    if dialect == "openai":
        assert (error["type"], error["code"]) == ("insufficient_quota", "insufficient_quota")


async def test_i7_i14_credits_used_are_the_sum_of_the_bills_and_nothing_stays_reserved() -> None:
    """After answers, streams, refusals and clients that leave."""
    slow = saying("Hello!" * 20, step_time_s=0.002)
    async with serving(slow) as server:
        options = await make_key(server, account_id="acme")
        await add(server, "1")

        async def leave_early() -> None:
            url = f"{server.url}/v1/chat/completions"
            body = {**CHAT, "max_tokens": 100, "stream": True}
            async with server.session.post(url, json=body, **options) as response:
                await response.content.readany()
                response.close()

        path = "/v1/chat/completions"
        await asyncio.gather(
            server.post(path, CHAT, **options),
            server.post(path, {**CHAT, "stream": True}, **options),
            server.post(path, {**CHAT, "temperature": -1}, **options),
            server.post(path, {**CHAT, "n": 2}, **options),
            leave_early(),
            leave_early(),
        )
        await server.settled()
        used, reserved = await balance(server)
        billed = sum(Decimal(event["cost"]) for event in server.usage.events)
    assert len(server.usage.events) == 5
    assert used == billed > 0
    assert reserved == 0


async def test_b21_of_64_clients_with_the_credit_of_one_request_one_is_answered() -> None:
    """The others are told that only a payment helps."""
    pause = Pause(1)
    async with serving(saying("Hello!", on_execute=pause), max_num_seqs=8) as server:
        options = await make_key(server, account_id="acme")
        await add(server, "0.00006")  # the prompt and 10 tokens are 0.000041

        async def ask() -> int:
            return (await server.post("/v1/chat/completions", CHAT, **options)).status

        asking = [asyncio.ensure_future(ask()) for _ in range(64)]
        await server.wait_until(lambda: sum(one.done() for one in asking) == 63)
        pause.may_go_on.set()
        statuses = [await one for one in asking]
        assert sorted(statuses) == [200] + [429] * 63
        used, reserved = await balance(server)
    assert (used, reserved) == (Decimal(server.usage.events[0]["cost"]), Decimal(0))
    assert len(server.usage.events) == 1


async def test_a_limit_of_a_key_ends_its_use() -> None:
    """Other keys of the same account go on."""
    async with serving() as server:
        cheap = await make_key(server, spend_limit="0.00006", spend_reset="daily")
        statuses = [
            (await server.post("/api/v1/chat/completions", CHAT, **cheap)).status for _ in range(3)
        ]
        assert statuses == [200, 402, 402]
        async with server.session.get(f"{server.url}/api/v1/key", **cheap) as response:
            data = (await response.json())["data"]
        assert Decimal(str(data["limit_remaining"])) == Decimal("0.00006") - Decimal(
            server.usage.events[0]["cost"]
        )
        assert (await server.chat()).status == 200


async def test_b17_a_request_is_charged_what_it_was_admitted_at() -> None:
    """Its event quotes the prices, and they are what is charged."""
    async with serving() as server:
        options = await make_key(server, account_id="acme")
        await add(server, "1")
        await server.post("/v1/chat/completions", CHAT, **options)
        event = server.usage.events[0]
        used, _ = await balance(server)
    tokens = Decimal(event["prompt_tokens"]), Decimal(event["completion_tokens"])
    prices = Decimal(event["prices"]["prompt"]), Decimal(event["prices"]["completion"])
    assert used == tokens[0] * prices[0] + tokens[1] * prices[1]


async def test_the_credits_route_says_what_was_bought_and_used() -> None:
    """Of the account of whoever asks."""
    async with serving() as server:
        options = await make_key(server, account_id="acme")
        await add(server, "2.5")
        await server.post("/v1/chat/completions", CHAT, **options)
        async with server.session.get(f"{server.url}/api/v1/credits", **options) as response:
            data = (await response.json())["data"]
    assert data == {
        "total_credits": 2.5,
        "total_usage": float(server.usage.events[0]["cost"]),
    }


async def test_an_operator_credits_an_account_over_http() -> None:
    """Once for each payment; accounts cannot do it themselves."""
    async with serving() as server:
        operator = await make_key(server, scope="management")
        account = await make_key(server, scope="management", account_id="acme")
        customer = await make_key(server, account_id="acme")
        body = {"account_id": "acme", "amount": "2.50", "id": "payment-1"}
        for options in (account, customer):
            assert (await server.post("/api/v1/credits", body, **options)).status == 403
        for _ in range(2):
            answer = await server.post("/api/v1/credits", body, **operator)
            assert answer.status == 201
            assert (await answer.json())["data"] == {"total_credits": 2.5, "total_usage": 0}
        for other in ({"amount": "2.51"}, {"account_id": "another"}):
            answer = await server.post("/api/v1/credits", {**body, **other}, **operator)
            assert answer.status == 409
        wrong = await server.post("/api/v1/credits", {**body, "amount": 2.5}, **operator)
        assert (await wrong.json())["error"]["metadata"]["param"] == "amount"


async def test_no_key_is_in_any_log(capfd: pytest.CaptureFixture[str]) -> None:
    """A10: neither a right one nor a wrong one nor a rotated one, nor a word of a prompt."""
    wrong = "sk-pc-abcdefghijkl-canaryofawrongkey"
    async with serving() as server:
        keys = server.server.keys
        assert keys is not None
        key, secret = await keys.create(account_id="acme", spend_limit="0.00006")
        second = await keys.rotate(key)
        for presented in (secret, second, wrong):
            for place in ({"Authorization": f"Bearer {presented}"}, {"x-api-key": presented}):
                body = {**CHAT, "messages": [{"role": "user", "content": "canary-of-a-prompt"}]}
                options = {"headers": {"Authorization": "", **place}}
                await server.post("/v1/chat/completions", body, **options)
            query = f"/v1beta/models/test-model:generateContent?key={presented}"
            await server.post(query, CHATS["google"][1], headers={"Authorization": ""})
        written = capfd.readouterr()
        lines = (written.out + written.err).encode() + b"".join(server.usage.lines)
        for file in server.server.settings.data_dir.rglob("*"):
            lines += file.read_bytes() if file.is_file() else b""
    assert b"request.access" in lines
    for canary in (secret, second, wrong):
        assert canary.rpartition("-")[2].encode() not in lines
    assert b"canary" not in lines
