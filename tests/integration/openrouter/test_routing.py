"""Models to try in turn, and preferences, against a server of several models."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from decimal import Decimal
from typing import Any

import openai
import pytest

from provider_core.errors import StepFailed
from provider_core.interfaces import ModelRunner
from provider_core.prices import Prices, PriceTier
from provider_core.testing import ScriptedRunner
from provider_core.types import ModelSpec
from tests.serving import EOS, KEY, VOCAB_SIZE, Serving, ids_of, make_model_dir, serving

MESSAGES = [{"role": "user", "content": "hi"}]
LENGTHS = {"broken": 2048, "small": 40}


def runner_for(model: ModelSpec) -> ModelRunner:
    """`broken` fails at its first step; all others say their name."""
    return ScriptedRunner(
        max_num_seqs=4,
        max_model_len=model.max_model_len,
        vocab_size=VOCAB_SIZE,
        reply=[*ids_of(model.id), EOS],
        failures={0: StepFailed("no")} if model.id == "broken" else None,
    )


@asynccontextmanager
async def three_models() -> AsyncIterator[Serving]:
    """`broken`, `small` with room for 40 tokens, and `test-model`."""
    async with serving(runner_for, provider={"slug": "acme"}) as served:
        spec = served.server.models.find("test-model").spec
        folder = served.server.settings.data_dir
        for name, length in LENGTHS.items():
            source = make_model_dir(folder / name, max_model_len=length)
            await served.server.models.load(
                replace(spec, id=name, source=str(source), aliases=(), max_model_len=0)
            )
        yield served


async def ask(served: Serving, base: str = "/api/v1", **body: Any) -> tuple[int, Any]:
    """Status and body of a chat."""
    reply = await served.post(f"{base}/chat/completions", {"messages": MESSAGES, **body})
    return reply.status, await reply.json()


@pytest.mark.parametrize("base", ["/v1", "/api/v1"])
async def test_the_next_model_answers_when_one_fails(base: str) -> None:
    """Whatever went wrong; the answer and the bill name the one that was used."""
    async with three_models() as served:
        status, answer = await ask(served, base, model="broken", models=["nobody", "test-model"])
        failed, billed = served.usage.events

    assert status == 200
    assert answer["model"] == "test-model"
    assert answer["choices"][0]["message"]["content"] == "test-model"
    assert (failed["model"], failed["billable"], failed["cost"]) == ("broken", False, "0")
    assert (billed["model"], billed["billable"]) == ("test-model", True)
    assert billed["generation_id"] == answer["id"]


async def test_a_prompt_that_is_too_long_goes_to_a_model_with_room() -> None:
    """The first of `models` is the model where none is named."""
    async with three_models() as served:
        long = [{"role": "user", "content": "x" * 100}]
        alone, _ = await ask(served, model="small", messages=long)
        status, answer = await ask(served, models=["small", "test-model"], messages=long)

    assert (alone, status) == (400, 200)
    assert answer["model"] == "test-model"


COMPRESSION: dict[str, Any] = {"plugins": [{"id": "context-compression"}]}


@pytest.mark.parametrize("fields", [COMPRESSION, {"transforms": ["middle-out"]}])
async def test_a_long_conversation_loses_its_middle_if_the_client_agrees(
    fields: dict[str, Any],
) -> None:
    """What is left fits, with room for the reply; without leave it is an error."""
    turns = [
        {"role": role, "content": f"{number} {'x' * 100}"}
        for number in range(30)
        for role in ("user", "assistant")
    ]
    messages = [{"role": "system", "content": "Be brief."}, *turns[:-1]]
    async with three_models() as served:
        refused, _ = await ask(served, model="test-model", messages=messages)
        status, answer = await ask(served, model="test-model", messages=messages, **fields)

    assert (refused, status) == (400, 200)
    assert 2048 // 2 < answer["usage"]["prompt_tokens"] <= 2048 - 2048 // 8


async def test_a_turn_that_is_too_long_stays_an_error() -> None:
    """Nothing is cut within a message."""
    messages = [
        {"role": "user", "content": "x" * 3000},
        *MESSAGES,
        {"role": "user", "content": "y" * 3000},
    ]
    async with three_models() as served:
        status, answer = await ask(served, model="test-model", messages=messages, **COMPRESSION)

    assert status == 400
    assert answer["error"]["metadata"]["error_type"] == "context_length_exceeded"


async def test_a_stream_falls_back_before_its_first_byte() -> None:
    """The client sees one stream of one model."""
    async with (
        three_models() as served,
        openai.AsyncOpenAI(base_url=served.url + "/api/v1", api_key=KEY, max_retries=0) as client,
    ):
        messages: Any = MESSAGES
        stream = await client.chat.completions.create(
            model="broken",
            messages=messages,
            stream=True,
            extra_body={"models": ["test-model"], "route": "fallback"},
        )
        chunks = [chunk async for chunk in stream]

    assert {chunk.model for chunk in chunks} == {"test-model"}
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == "test-model"


async def test_the_last_error_is_the_answer() -> None:
    """With all models that were asked for."""
    async with three_models() as served:
        status, answer = await ask(served, model="broken", models=["nobody"])

    assert status == 400
    assert answer["error"]["availability"]["requested_models"] == ["broken", "nobody"]


async def test_a_mistake_in_the_body_is_answered_once() -> None:
    """Every model would say the same, and none runs."""
    async with three_models() as served:
        status, answer = await ask(served, model="test-model", models=["small"], temperature=9)

    assert status == 400
    assert answer["error"]["metadata"]["param"] == "temperature"
    assert served.usage.events == []


@pytest.mark.parametrize("variant", ["nitro", "floor", "exacto"])
async def test_variants_name_the_model_itself(variant: str) -> None:
    """There is one provider to sort."""
    async with three_models() as served:
        status, answer = await ask(served, model=f"test-model:{variant}")

    assert (status, answer["model"]) == (200, f"test-model:{variant}")
    assert served.usage.events[0]["model"] == "test-model"


async def test_a_priced_model_has_no_free_variant() -> None:
    """404, and what to ask for instead."""
    async with three_models() as served:
        status, answer = await ask(served, model="test-model:free")

    assert status == 404
    assert answer["error"]["availability"]["code"] == "free_variant_ended"


@pytest.mark.parametrize(
    ("provider", "code"),
    [
        ({"only": ["other"]}, "no_endpoints"),
        ({"ignore": ["acme"]}, "no_endpoints"),
        ({"max_price": {"completion": 1.5}}, "constraint_filtered"),
        ({"quantizations": ["fp16"]}, "constraint_filtered"),
        ({"zdr": True}, "privacy_restricted"),
    ],
)
async def test_preferences_that_rule_us_out_are_a_404(provider: dict[str, Any], code: str) -> None:
    """Nothing runs, and the client is told which it was."""
    async with three_models() as served:
        status, answer = await ask(served, model="test-model", provider=provider)

    assert status == 404
    assert answer["error"]["availability"]["code"] == code
    assert served.usage.events == []


async def test_preferences_that_are_met_change_nothing() -> None:
    """Prices are compared per million tokens."""
    provider = {"order": ["other"], "max_price": {"prompt": 1, "completion": 2}, "sort": "price"}
    async with three_models() as served:
        status, _ = await ask(served, model="test-model", provider=provider)

    assert status == 200


async def test_a_prompt_too_long_for_its_price_runs_nothing() -> None:
    """The tier that would be billed is compared, once the prompt is counted; 404 as before."""
    tier = PriceTier(min_prompt_tokens=60, prices=Prices(prompt=Decimal("0.000005")))
    provider = {"max_price": {"prompt": 1}}
    async with three_models() as served:
        spec = served.server.models.find("test-model").spec
        prices = Prices(prompt=Decimal("0.000001"), tiers=(tier,))
        await served.server.models.load(
            replace(spec, id="tiered", aliases=(), max_model_len=0, prices=prices)
        )
        short, _ = await ask(served, model="tiered", provider=provider)
        long = [{"role": "user", "content": "hi" * 30}]
        status, answer = await ask(served, model="tiered", provider=provider, messages=long)

    assert (short, status) == (200, 404)
    assert answer["error"]["availability"]["excluded_by"] == ["max_price"]
    assert len(served.usage.events) == 1
