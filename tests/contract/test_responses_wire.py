"""The kinds of chats once more, as responses: streamed and whole, strictly read, say the same."""

from typing import Any

import openai.types.responses as sdk
import orjson
import pytest

from tests.contract.chat_scenarios import OPENED, OPENED_SCENARIOS, SCENARIOS, Scenario
from tests.serving import HERMES, Serving, saying, serving
from tests.unit.dialects.responses_api.test_response_stream import read

CHATS_ONLY = {"n", "functions", "logprobs", "top_logprobs"}
ALL = {**SCENARIOS, **{f"{name}, opened": item for name, item in OPENED_SCENARIOS.items()}}
NAMES = sorted(name for name, item in ALL.items() if not item.fields.keys() & CHATS_ONLY)


def request_of(scenario: Scenario) -> dict[str, Any]:
    """A chat's request in the words of responses."""
    body: dict[str, Any] = {"model": "test-model", "input": "hi", **scenario.fields}
    if "max_tokens" in body:
        body["max_output_tokens"] = body.pop("max_tokens")
    if "tools" in body:
        body["tools"] = [flat(tool) for tool in body["tools"]]
    if isinstance(body.get("tool_choice"), dict):
        body["tool_choice"] = flat(body["tool_choice"])
    form = body.pop("response_format", None)
    if form is not None:
        body["text"] = {"format": {"type": form["type"], **form.get("json_schema", {})}}
    return body


def flat(tool: dict[str, Any]) -> dict[str, Any]:
    """A function beside its type, not under it."""
    return {"type": "function", **tool["function"]}


def without_ids(response: dict[str, Any]) -> dict[str, Any]:
    """A response without what differs from one generation to the next."""
    output = [
        {key: value for key, value in item.items() if key not in {"id", "call_id"}}
        for item in response["output"]
    ]
    times = ("id", "created_at", "completed_at", "output")
    return {key: value for key, value in response.items() if key not in times} | {"output": output}


async def ask(served: Serving, scenario: Scenario) -> tuple[dict[str, Any], dict[str, Any]]:
    """The whole response, and the last event's of the stream."""
    body = request_of(scenario)
    whole = await served.post("/v1/responses", body)
    content = await whole.read()
    assert whole.status == 200, content
    sdk.Response.model_validate_json(content, strict=True)
    stream = await served.post("/v1/responses", {**body, "stream": True})
    events = read(await stream.read())
    deltas = [event["delta"] for event in events if event["type"] == "response.output_text.delta"]
    assert "".join(deltas) == scenario.text
    return orjson.loads(content), events[-1]["response"]


@pytest.mark.parametrize("name", NAMES)
async def test_responses_of_every_kind_are_well_formed_and_say_the_same(name: str) -> None:
    """Text, reasoning and calls in their items, the status by how it ended."""
    scenario = ALL[name]
    template = OPENED if name.endswith(", opened") else HERMES
    async with serving(saying(scenario.says), chat_template=template) as served:
        whole, streamed = await ask(served, scenario)
    assert without_ids(whole) == without_ids(streamed)
    items: dict[str, list[dict[str, Any]]] = {"message": [], "reasoning": [], "function_call": []}
    for item in whole["output"]:
        items[item["type"]].append(item)
    texts = [part["text"] for item in items["message"] for part in item["content"]]
    thoughts = [part["text"] for item in items["reasoning"] for part in item["content"]]
    assert "".join(texts) == scenario.text
    assert ("".join(thoughts) or None) == scenario.reasoning
    calls = [(item["name"], item["arguments"]) for item in items["function_call"]]
    assert calls == scenario.calls
    is_cut = scenario.reason == "length"
    assert whole["status"] == ("incomplete" if is_cut else "completed")
    assert (whole["incomplete_details"] is not None) is is_cut
