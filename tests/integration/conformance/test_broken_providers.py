"""Each kind of fault is found by the check that is made for it, and named."""

from collections.abc import Callable
from typing import Any

import pytest

from provider_core.conformance.checks import select_checks
from provider_core.conformance.endpoint import make_endpoint
from provider_core.conformance.probe import Plan
from provider_core.conformance.runner import Result, Unreachable, run_checks
from tests.integration.conformance.fake_provider import KEY, MODEL, NONE, Fault, fake_provider


def replacing(old: bytes, new: bytes) -> Callable[[Any], Any]:
    """Another text in a stream."""
    return lambda body: body.replace(old, new)


def without_usage(body: bytes) -> bytes:
    """A stream whose chunk with usage is missing."""
    events = body.split(b"\n\n")
    return b"\n\n".join(event for event in events if b'"usage"' not in event)


def usage_twice(body: bytes) -> bytes:
    """A stream that repeats its chunk with usage."""
    events = body.split(b"\n\n")
    return b"\n\n".join([*events[:-2], events[-3], *events[-2:]])


def with_message(**fields: Any) -> Callable[[Any], Any]:
    """A whole answer whose message has other fields."""

    def spoil(body: Any) -> Any:
        body["choices"][0]["message"].update(fields)
        return body

    return spoil


def with_calls(name: str, arguments: str) -> Callable[[Any], Any]:
    """A whole answer with another call, if it has calls."""

    def spoil(body: Any) -> Any:
        for call in body["choices"][0]["message"].get("tool_calls", []):
            call["function"] = {"name": name, "arguments": arguments}
        return body

    return spoil


def with_model(**fields: Any) -> Callable[[Any], Any]:
    """A list whose model has other fields."""

    def spoil(body: Any) -> Any:
        body["data"][0].update(fields)
        return body

    return spoil


def ignoring(name: str) -> Callable[[Any], Any]:
    """A server that does not know a field of requests."""
    return lambda body: {key: value for key, value in body.items() if key != name}


def dear(body: Any) -> Any:
    """The monitor's document with another price."""
    body["data"][0]["input_modalities"][0]["pricing"][0]["cost_usd"] = "0.000009"
    return body


ONE_INDEX = replacing(b'"index":1', b'"index":0')
FAULTS: dict[str, tuple[str, Fault, str]] = {
    "bug_01_no_usage": ("chat.stream_usage", Fault(stream=without_usage), "no usage came"),
    "bug_01_usage_twice": ("chat.stream", Fault(stream=usage_twice), "usage came twice"),
    "bug_02_one_index": ("tools.streamed", Fault(stream=ONE_INDEX), "comes again"),
    "bug_03_no_type": (
        "tools.streamed",
        Fault(stream=replacing(b'"type":"function",', b"")),
        "first delta has no type",
    ),
    "bug_05_empty_reason": (
        "chat.stream",
        Fault(stream=replacing(b'"finish_reason":null', b'"finish_reason":""')),
        "finish_reason is ''",
    ),
    "bug_06_stop_leaks": ("parameters.stop", Fault(request=ignoring("stop")), "the stop string"),
    "bug_11_numeric_code": (
        "errors.out_of_range",
        Fault(error=lambda error: error | {"code": 400}),
        "error.code is 400, no string",
    ),
    "bug_10_server_error": ("errors.malformed", Fault(status={400: 500}), "status 500, not 400"),
    "bug_13_breaks_off": ("chat.stream", Fault(breaks_off=True), "the connection broke"),
    "bug_13_no_done": (
        "chat.stream",
        Fault(stream=replacing(b"data: [DONE]\n\n", b"")),
        "does not end with data: [DONE]",
    ),
    "bug_15_no_limit": (
        "parameters.max_tokens",
        Fault(request=ignoring("max_tokens")),
        "max_tokens 3 made 11 tokens",
    ),
    "bug_20_id": (
        "chat.stream",
        Fault(stream=lambda body: body.replace(b"gen-1", b"gen-2", 1)),
        "id changes in mid-stream",
    ),
    "bug_21_no_arguments": (
        "tools.auto",
        Fault(whole=with_calls("get_time", "")),
        "without any they are '{}'",
    ),
    "unnamed_field": (
        "errors.out_of_range",
        Fault(error=lambda error: error | {"param": None, "message": "no"}),
        "does not name it",
    ),
    "other_status": (
        "errors.bad_key",
        Fault(status={401: 403}),
        "status 403, not 401",
    ),
    "unknown_name": ("tools.auto", Fault(whole=with_calls("f", "{}")), "UnknownName: 'f'"),
    "invalid_json": (
        "tools.auto",
        Fault(whole=with_calls("get_weather", '{"city":')),
        "InvalidJson: get_weather",
    ),
    "mismatch": (
        "tools.auto",
        Fault(whole=with_calls("get_weather", '{"town": "Rome"}')),
        "SchemaMismatch: get_weather",
    ),
    "no_json": (
        "schemas.json_schema",
        Fault(whole=with_message(content="Rome is big.")),
        "the answer is not JSON",
    ),
    "other_json": (
        "schemas.json_schema",
        Fault(whole=with_message(content='{"name": "Rome"}')),
        "does not conform",
    ),
    "created": ("models.list", Fault(models=with_model(created="now")), "created is not an int"),
    "context": (
        "models.limits",
        Fault(models=with_model(context_length=None)),
        "context_length of fake/model is None",
    ),
    "float_price": (
        "models.prices",
        Fault(models=with_model(pricing={"prompt": 1e-6, "completion": 2e-6})),
        "pricing.prompt is 1e-06, not a string",
    ),
    "monitor_extra": (
        "listings.monitor",
        Fault(monitor=with_model(object="model")),
        "['data'][0]",
    ),
    "two_prices": (
        "listings.prices",
        Fault(monitor=dear),
        "prompt: 0.000001 in /models, 0.000009 in the monitor's document",
    ),
    "no_shape": (
        "models.limits",
        Fault(models=lambda _: {"data": [{"id": MODEL}, "text"]}),
        "context_length of fake/model is None",
    ),
}


async def run_one(url: str, check_id: str) -> Result:
    """The result of one check."""
    checks = [check for check in select_checks() if check.id == check_id]
    plan = Plan(num_burst=20)
    report = await run_checks(make_endpoint(url, key=KEY), checks, model=MODEL, plan=plan)
    (result,) = report.results
    return result


@pytest.mark.parametrize("name", FAULTS)
async def test_a_fault_is_found_and_named(name: str) -> None:
    """With a command that repeats the request."""
    check_id, fault, reason = FAULTS[name]
    async with fake_provider(fault) as url:
        result = await run_one(url, check_id)

    assert result.status == "fail"
    assert reason in result.detail
    assert result.curl.startswith("curl -sN")
    assert KEY not in result.curl


@pytest.mark.parametrize("check_id", sorted({check_id for check_id, _, _ in FAULTS.values()}))
async def test_without_the_fault_nothing_is_found(check_id: str) -> None:
    """So that what was found above is the fault."""
    async with fake_provider(NONE) as url:
        result = await run_one(url, check_id)

    assert result.status in {"pass", "warn"}, result.detail


async def test_a_429_is_waited_for() -> None:
    """As long as it says, a few times."""
    async with fake_provider(Fault(num_refused=3)) as url:
        assert (await run_one(url, "chat.whole")).status == "pass"
    async with fake_provider(Fault(num_refused=4)) as url:
        result = await run_one(url, "chat.whole")
    assert result.status == "fail"
    assert "status 429" in result.detail


async def test_a_refused_burst_must_say_when_to_come_back() -> None:
    """In whole seconds, of which 0 are none; who never refuses is not judged."""
    async with fake_provider(Fault(num_refused=9)) as url:
        result = await run_one(url, "errors.rate_limit")
    assert (result.status, result.detail) == ("fail", "a 429 has Retry-After '0'")
    async with fake_provider() as url:
        assert (await run_one(url, "errors.rate_limit")).status == "not_applicable"


async def test_absent_dialects_and_documents_are_not_applicable() -> None:
    """A provider need not have them."""
    async with fake_provider() as url:
        checks = select_checks(("anthropic", "google", "accounts"))
        report = await run_checks(make_endpoint(url, key=KEY), checks)

    assert {result.status for result in report.results} == {"not_applicable"}


async def test_public_pages_are_read_without_the_key() -> None:
    """One that is there, one that is not, and those that nobody has named."""
    async with fake_provider() as url:
        pages = {"docs_url": f"{url}/openrouter/models", "privacy_policy_url": f"{url}/nothing"}
        endpoint = make_endpoint(url, key=KEY)
        report = await run_checks(endpoint, select_checks(("pages",)), pages=pages)
    found = {result.check.id: result for result in report.results}

    assert found["pages.docs_url"].status == "pass"
    assert found["pages.privacy_policy_url"].status == "fail"
    assert "status 404" in found["pages.privacy_policy_url"].detail
    assert "API_KEY" not in found["pages.privacy_policy_url"].curl
    assert found["pages.pricing_url"].status == "not_applicable"


async def test_nobody_answers() -> None:
    """Nothing can be checked then."""
    async with fake_provider() as url:
        pass
    with pytest.raises(Unreachable, match="nobody answers"):
        await run_checks(make_endpoint(url), [])


async def test_a_list_without_models_needs_a_name() -> None:
    """Which `--model` gives."""
    async with fake_provider(Fault(models=lambda _: {"data": []})) as url:
        with pytest.raises(Unreachable, match="name one with --model"):
            await run_checks(make_endpoint(url, key=KEY), [])
