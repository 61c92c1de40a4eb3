"""Reasoning, from the request to the answer, over a scripted model that thinks."""

import json
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest

from tests.chat_templates import (
    REASONING_TEMPLATE,
    STUBBORN_TEMPLATE,
    TOOLS_TEMPLATE,
    make_templated_dir,
)
from tests.serving import Serving, ids_of, saying, serving

THOUGHT = "Let me see. It is {true}."
CLOSE = "\n</think>\n\n"
Serve = Callable[..., AbstractAsyncContextManager[Serving]]


@pytest.fixture
def thinking_server(tmp_path: Path) -> Serve:
    """Serves a model whose prompts open its reasoning, and that goes on with one text."""

    def serve(
        text: str = THOUGHT + CLOSE + "yes", template: str = REASONING_TEMPLATE
    ) -> AbstractAsyncContextManager[Serving]:
        folder = make_templated_dir(tmp_path / "model", template)
        return serving(saying(text), models=({"id": "test-model", "source": str(folder)},))

    return serve


async def ask(served: Serving, **fields: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Message and usage of a whole answer."""
    response = await served.chat(**fields)
    body = await response.json()
    assert response.status == 200, body
    return body["choices"][0]["message"], body["usage"]


async def stream(served: Serving, **fields: Any) -> tuple[str, str]:
    """Reasoning and content of a stream."""
    response = await served.chat(stream=True, **fields)
    reasoning = content = ""
    for frame in (await response.text()).split("\n\n"):
        if frame.startswith("data: {"):
            for choice in json.loads(frame.removeprefix("data: "))["choices"]:
                reasoning += choice["delta"].get("reasoning") or ""
                content += choice["delta"].get("content") or ""
    return reasoning, content


async def test_bug_30_reasoning_is_told_beside_the_answer(thinking_server: Serve) -> None:
    """Whole and streamed alike; its tokens are among the completion's."""
    async with thinking_server() as served:
        message, usage = await ask(served)
        streamed = await stream(served)
    assert (message["reasoning"], message["content"]) == streamed == (THOUGHT, "yes")
    details = usage["completion_tokens_details"]
    assert len(THOUGHT) < details["reasoning_tokens"] < usage["completion_tokens"]


async def test_excluded_reasoning_is_billed_and_not_shown(thinking_server: Serve) -> None:
    """As OpenRouter defines `exclude`."""
    async with thinking_server() as served:
        shown, usage = await ask(served)
        hidden, hidden_usage = await ask(served, reasoning={"exclude": True})
    assert "reasoning" not in hidden or hidden["reasoning"] is None
    assert hidden["content"] == shown["content"] == "yes"
    assert hidden_usage["completion_tokens"] == usage["completion_tokens"]
    assert hidden_usage["completion_tokens_details"] == usage["completion_tokens_details"]


@pytest.mark.parametrize(
    "fields", [{"reasoning": {"enabled": False}}, {"reasoning_effort": "none"}]
)
async def test_bug_30_disabled_reasoning_leaves_the_answer_alone(
    thinking_server: Serve, fields: dict[str, Any]
) -> None:
    """The template closes it in the prompt, so that whatever comes is content."""
    async with thinking_server("no thoughts") as served:
        message, usage = await ask(served, **fields)
    assert message["content"] == "no thoughts"
    assert usage["completion_tokens_details"]["reasoning_tokens"] == 0


@pytest.mark.parametrize(("max_tokens", "thought"), [(5, THOUGHT[:5]), (1000, THOUGHT)])
async def test_reasoning_ends_at_its_budget(
    thinking_server: Serve, max_tokens: int, thought: str
) -> None:
    """At once; what the model says then is its own."""
    async with thinking_server() as served:
        message, _ = await ask(served, reasoning={"max_tokens": max_tokens}, max_tokens=200)
    assert message["reasoning"] == thought


async def test_an_effort_that_the_template_does_not_know_is_a_budget(
    thinking_server: Serve,
) -> None:
    """A share of the most tokens there may be: a fifth."""
    async with thinking_server() as served:
        message, _ = await ask(served, reasoning_effort="low", max_tokens=100)
    assert message["reasoning"] == THOUGHT[:20]


async def test_a_template_that_always_opens_reasoning_is_overruled(thinking_server: Serve) -> None:
    """It is closed before the first thought."""
    async with thinking_server(template=STUBBORN_TEMPLATE) as served:
        message, _ = await ask(served, reasoning={"enabled": False}, max_tokens=60)
    assert not message.get("reasoning")


@pytest.mark.parametrize("enabled", [True, False])
async def test_bug_22_a_schema_binds_the_answer_with_and_without_reasoning(
    thinking_server: Serve,
    enabled: bool,  # noqa: FBT001 - a parameter
) -> None:
    """Streamed and whole: the content validates, and the reasoning is free."""
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    text = (THOUGHT + CLOSE if enabled else "") + '{"a": 12}'
    fields = {"response_format": form, "reasoning": {"enabled": enabled}}
    async with thinking_server(text) as served:
        message, _ = await ask(served, **fields)
        streamed = await stream(served, **fields)
    assert json.loads(message["content"]) == json.loads(streamed[1]) == {"a": 12}
    assert (message.get("reasoning") or "") == streamed[0] == (THOUGHT if enabled else "")


TOOLS = [{"type": "function", "function": {"name": "get_time"}}]
CALL = '<tool_call>\n{"name": "get_time", "arguments": {}}\n</tool_call>'


@pytest.mark.parametrize("choice", ["auto", "required"])
async def test_calls_follow_reasoning(thinking_server: Serve, choice: str) -> None:
    """Which is free, though the calls are bound."""
    async with thinking_server(THOUGHT + CLOSE + CALL) as served:
        message, _ = await ask(served, tools=TOOLS, tool_choice=choice)
    assert (message["reasoning"], message["content"]) == (THOUGHT, None)
    assert [call["function"]["name"] for call in message["tool_calls"]] == ["get_time"]


async def test_bug_30_reasoning_is_split_off_after_a_tools_result_too(
    thinking_server: Serve,
) -> None:
    """In the second turn as in the first."""
    call = {"id": "1", "type": "function", "function": {"name": "get_time", "arguments": "{}"}}
    turns = [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": None, "reasoning": "hm", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "1", "content": "noon"},
    ]
    body = {"model": "test-model", "messages": turns, "tools": TOOLS}
    async with thinking_server() as served:
        response = await served.post("/v1/chat/completions", body)
        message = (await response.json())["choices"][0]["message"]
    assert (message["reasoning"], message["content"]) == (THOUGHT, "yes")


async def test_bug_06_a_stop_string_in_the_reasoning_stops_nothing(thinking_server: Serve) -> None:
    """It is looked for in the answer."""
    async with thinking_server(THOUGHT + CLOSE + "It is so. It was.") as served:
        message, _ = await ask(served, stop=["is"])
    assert (message["reasoning"], message["content"]) == (THOUGHT, "It ")


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"reasoning_effort": "low"}, "reasoning_effort"),
        ({"reasoning": {"max_tokens": 10}}, "reasoning"),
        ({"reasoning": {"enabled": True}}, "reasoning"),
    ],
)
async def test_a_model_that_does_not_reason_says_so(fields: dict[str, Any], param: str) -> None:
    """A 400 that names the field."""
    async with serving(saying("hi")) as served:
        response = await served.chat(**fields)
        body = await response.json()
    assert response.status == 400
    assert body["error"]["param"].startswith(param)


async def test_a_budget_is_kept_by_a_model_that_opens_its_reasoning(thinking_server: Serve) -> None:
    """With a tag of several tokens, too."""
    template = TOOLS_TEMPLATE + "{#- answers begin with <think> -#}"
    async with thinking_server(f"<think>{THOUGHT}{CLOSE}yes", template) as served:
        cut, _ = await ask(served, reasoning={"max_tokens": 5}, max_tokens=100)
        message, _ = await ask(served)
    assert cut["reasoning"] == THOUGHT[:5]
    assert (message["reasoning"], message["content"]) == (THOUGHT, "yes")


@pytest.mark.parametrize("fields", [{"reasoning_effort": "none"}, {"reasoning": {"exclude": True}}])
async def test_wishes_that_change_nothing_are_fulfilled(fields: dict[str, Any]) -> None:
    """By any model."""
    async with serving(saying("hi")) as served:
        message, usage = await ask(served, **fields)
    assert message["content"] == "hi"
    assert usage["completion_tokens"] == len(ids_of("hi")) + 1
