"""Tools, from the request to the answer, over a scripted model."""

import json
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest

from provider_core import InvalidRequest, ToolParser, UnsupportedParameter, hookimpl
from provider_core.interfaces import ModelRunner
from provider_core.text.tool_parsers import mistral
from provider_core.types import Constraint, ModelSpec
from tests.chat_templates import TOOLS_TEMPLATE, make_templated_dir
from tests.serving import Serving, saying, serving

WEATHER = {
    "name": "get_weather",
    "parameters": {
        "type": "object",
        "properties": {"city": {"enum": ["Rome", "Oslo"]}},
        "required": ["city"],
    },
}
TOOLS = [{"type": "function", "function": each} for each in (WEATHER, {"name": "get_time"})]
CALL = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Rome"}}\n</tool_call>'
TIME = '<tool_call>\n{"name": "get_time", "arguments": {}}\n</tool_call>'
NAMED = {"type": "function", "function": {"name": "get_time"}}


@pytest.fixture
def tool_server(tmp_path: Path) -> Callable[[str], AbstractAsyncContextManager[Serving]]:
    """Serves a model that takes tools and wants to say one text."""
    folder = make_templated_dir(tmp_path / "model", TOOLS_TEMPLATE)

    def serve(text: str) -> AbstractAsyncContextManager[Serving]:
        make_runner: Callable[[ModelSpec], ModelRunner] = saying(text)
        return serving(make_runner, models=({"id": "test-model", "source": str(folder)},))

    return serve


Serve = Callable[[str], AbstractAsyncContextManager[Serving]]


async def answer(served: Serving, **fields: Any) -> dict[str, Any]:
    """The first choice of a whole answer, its calls as pairs of name and arguments.

    Of the last call of an answer that was cut, the arguments may be `None`.
    """
    response = await served.chat(**{"tools": TOOLS, "max_tokens": 300, **fields})
    body = await response.json()
    assert response.status == 200, body
    choice: dict[str, Any] = body["choices"][0]
    calls = choice["message"].get("tool_calls", [])
    choice["calls"] = [
        (call["function"]["name"], read_arguments(call, choice["finish_reason"])) for call in calls
    ]
    return choice


def read_arguments(call: dict[str, Any], finish_reason: str) -> Any:
    """A call's arguments, which only an answer that was cut may leave unfinished."""
    try:
        return json.loads(call["function"]["arguments"])
    except json.JSONDecodeError:
        assert finish_reason == "length"
        return None


async def streamed(served: Serving, **fields: Any) -> tuple[str, list[tuple[str, Any]], str]:
    """Text, calls and finish reason of a stream."""
    response = await served.chat(**{"tools": TOOLS, "stream": True, **fields})
    frames = (await response.text()).split("\n\n")
    text, reason = "", ""
    calls: list[list[str]] = []
    for frame in frames:
        if not frame.startswith("data: {"):
            continue
        for choice in json.loads(frame.removeprefix("data: "))["choices"]:
            reason = choice["finish_reason"] or reason
            text += choice["delta"].get("content") or ""
            for call in choice["delta"].get("tool_calls", []):
                if "id" in call:
                    calls.append([call["function"]["name"], ""])
                calls[call["index"]][1] += call["function"]["arguments"]
    return text, [(name, json.loads(arguments)) for name, arguments in calls], reason


@pytest.mark.parametrize("choice", ["auto", "required", None])
async def test_a_call_is_answered_whole_and_streamed_alike(
    tool_server: Serve, choice: str | None
) -> None:
    """Two calls, their arguments, and the reason."""
    fields = {} if choice is None else {"tool_choice": choice}
    async with tool_server(f"{CALL}\n{TIME}") as served:
        whole = await answer(served, **fields)
        text, calls, reason = await streamed(served, **fields)
    assert whole["finish_reason"] == reason == "tool_calls"
    assert whole["message"]["content"] is None
    assert whole["calls"] == calls == [("get_weather", {"city": "Rome"}), ("get_time", {})]
    assert text == ""


async def test_a_model_that_calls_nothing_answers_as_it_likes(tool_server: Serve) -> None:
    """Text stays free."""
    async with tool_server("I need no <tool>") as served:
        choice = await answer(served)
    assert (choice["finish_reason"], choice["calls"]) == ("stop", [])
    assert choice["message"]["content"] == "I need no <tool>"


@pytest.mark.parametrize(
    ("choice", "names"),
    [
        ("required", {"get_weather", "get_time"}),
        (NAMED, {"get_time"}),
        (
            {
                "type": "allowed_tools",
                "allowed_tools": {"mode": "required", "tools": [{**TOOLS[0]}]},
            },
            {"get_weather"},
        ),
    ],
)
async def test_bug_05_a_call_that_is_demanded_is_made(
    tool_server: Serve, choice: Any, names: set[str]
) -> None:
    """Though the model would rather talk: what it cannot say, it does not."""
    async with tool_server("no, I will not") as served:
        reply = await answer(served, tool_choice=choice)
    assert {name for name, _ in reply["calls"]} <= names
    assert reply["calls"] or reply["finish_reason"] == "length"


@pytest.mark.parametrize(
    "wrong",
    [
        CALL.replace("Rome", "Paris"),
        CALL.replace("city", "town"),
        CALL.replace("get_weather", "get_wealth"),
        CALL.replace("}}", "}"),
    ],
)
async def test_a_call_that_was_begun_conforms(tool_server: Serve, wrong: str) -> None:
    """Names are of the request, and arguments of their schema."""
    async with tool_server(wrong) as served:
        reply = await answer(served)
    for name, arguments in reply["calls"]:
        assert (name, arguments) in [
            ("get_weather", {"city": "Rome"}),
            ("get_weather", {"city": "Oslo"}),
            ("get_time", {}),
        ]
    assert "tool_call" not in (reply["message"]["content"] or "")


async def test_no_parallel_calls_means_one(tool_server: Serve) -> None:
    """The reply ends behind it."""
    async with tool_server(f"{CALL}\n{TIME}") as served:
        reply = await answer(served, parallel_tool_calls=False)
    assert [name for name, _ in reply["calls"]] == ["get_weather"]
    assert reply["finish_reason"] == "tool_calls"


async def test_bug_04_without_a_choice_markup_is_content(tool_server: Serve) -> None:
    """`none` shows the model no tools, and reads no calls."""
    async with tool_server(CALL) as served:
        reply = await answer(served, tool_choice="none")
    assert reply["message"]["content"] == CALL
    assert reply["finish_reason"] == "stop"


async def test_a_model_without_tools_says_so() -> None:
    """A 400 that names the field, unless nothing may be called."""
    async with serving(saying("hi")) as served:
        refused = await served.chat(tools=TOOLS)
        body = await refused.json()
        accepted = await served.chat(tools=TOOLS, tool_choice="none")
    assert (refused.status, accepted.status) == (400, 200)
    assert body["error"]["param"] == "tools"
    assert body["error"]["code"] == "unsupported_parameter"


async def test_a_strict_tool_that_cannot_be_enforced_is_a_400(tool_server: Serve) -> None:
    """It names the tool and the place; without `strict` any object will do."""
    parameters = {"type": "object", "properties": {"a": {"not": {"type": "null"}}}}
    loose = {"type": "function", "function": {"name": "f", "parameters": parameters}}
    strict = {"type": "function", "function": {**loose["function"], "strict": True}}  # type: ignore[dict-item]
    call = '<tool_call>\n{"name": "f", "arguments": {"a": 1}}\n</tool_call>'
    async with tool_server(call) as served:
        refused = await served.chat(tools=[*TOOLS, strict])
        body = await refused.json()
        reply = await answer(served, tools=[*TOOLS, loose])
    assert refused.status == 400
    assert body["error"]["param"] == "tools[2].function.parameters/properties/a/not"
    assert reply["calls"] == [("f", {"a": 1})]


class Compiler:
    """A plugin that refuses to compile some constraints, and leaves the others to the core."""

    def __init__(self, refuse: Callable[[Constraint], InvalidRequest | None]) -> None:
        self._refuse = refuse

    @hookimpl
    def compile_grammar(self, constraint: Constraint) -> None:
        """Refuse, or decline."""
        if error := self._refuse(constraint):
            raise error


async def test_a_model_that_cannot_be_constrained_still_calls(tmp_path: Path) -> None:
    """As it likes; but it cannot be made to."""
    folder = make_templated_dir(tmp_path / "model", TOOLS_TEMPLATE)
    model = {"id": "test-model", "source": str(folder)}
    plugin = Compiler(lambda _: UnsupportedParameter("nothing here", param="tools"))
    wrong = CALL.replace("Rome", "Paris")
    async with serving(saying(wrong), models=(model,), plugins=(plugin,)) as served:
        reply = await answer(served)
        refused = await served.chat(tools=TOOLS, tool_choice="required")
    assert reply["calls"] == [("get_weather", {"city": "Paris"})]
    assert refused.status == 400


@pytest.mark.parametrize("code", ["schema_too_complex", "invalid_schema"])
async def test_tools_that_are_too_much_for_a_grammar_get_any_object(
    tmp_path: Path, code: str
) -> None:
    """Names stay bound; what the compiler blames alone is loosened, or all if they are too many."""

    def refuse(constraint: Constraint) -> InvalidRequest | None:
        if "Rome" not in constraint.source:
            return None
        return InvalidRequest("too much", param=constraint.param, code=code)

    folder = make_templated_dir(tmp_path / "model", TOOLS_TEMPLATE)
    model = {"id": "test-model", "source": str(folder)}
    wrong = CALL.replace("Rome", "Paris")
    plugin = Compiler(refuse)
    async with serving(saying(wrong), models=(model,), plugins=(plugin,)) as served:
        reply = await answer(served)
        strict = {"type": "function", "function": {**WEATHER, "strict": True}}
        refused = await served.chat(tools=[strict])
    assert reply["calls"] == [("get_weather", {"city": "Paris"})]
    assert refused.status == 400


class Parsing:
    """A plugin that knows how the model writes calls."""

    @hookimpl
    def make_tool_parser(self) -> ToolParser:
        """Whatever the template shows."""
        return mistral.NAMED


async def test_a_plugins_parser_wins(tmp_path: Path) -> None:
    """Over what the template shows."""
    folder = make_templated_dir(tmp_path / "model", TOOLS_TEMPLATE)
    model = {"id": "test-model", "source": str(folder)}
    text = '[TOOL_CALLS]get_weather[ARGS]{"city": "Oslo"}'
    async with serving(saying(text), models=(model,), plugins=(Parsing(),)) as served:
        reply = await answer(served)
    assert reply["calls"] == [("get_weather", {"city": "Oslo"})]


async def test_a_response_format_leaves_the_choice_of_a_call(tool_server: Serve) -> None:
    """The content is the document, or there are calls."""
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    async with tool_server(CALL) as served:
        called = await answer(served, response_format=form)
    async with tool_server('{"a": 5}') as served:
        said = await answer(served, response_format=form)
    assert called["calls"] == [("get_weather", {"city": "Rome"})]
    assert (said["calls"], json.loads(said["message"]["content"])) == ([], {"a": 5})


@pytest.mark.parametrize("arguments", ['{"city": "Rome"}', "", "null", "{}", '{"city', "5", "[]"])
async def test_bug_17_calls_of_earlier_turns_are_rendered_in_the_models_syntax(
    tool_server: Serve, arguments: str
) -> None:
    """Also empty, null and invalid ones: no 5xx, and the conversation goes on."""
    call = {"id": "call_1", "type": "function"}
    call |= {"function": {"name": "get_weather", "arguments": arguments}}  # type: ignore[dict-item]
    turns = [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": "sunny"},
        {"role": "user", "content": "and now?"},
    ]
    body = {"model": "test-model", "messages": turns, "tools": TOOLS}
    async with tool_server(TIME) as served:
        response = await served.post("/v1/chat/completions", body)
        reply = await response.json()
    assert response.status == 200
    assert reply["choices"][0]["finish_reason"] == "tool_calls"


async def test_a_models_parser_can_be_named(tmp_path: Path) -> None:
    """Where its template misleads."""
    folder = make_templated_dir(tmp_path / "model", TOOLS_TEMPLATE)
    model = {"id": "test-model", "source": str(folder), "tool_parser": "mistral_args"}
    text = '[TOOL_CALLS]get_weather[ARGS]{"city": "Oslo"}'
    async with serving(saying(text), models=(model,)) as served:
        reply = await answer(served)
    assert reply["calls"] == [("get_weather", {"city": "Oslo"})]
