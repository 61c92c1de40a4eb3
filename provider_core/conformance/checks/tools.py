"""Tool calls: asked for, forced, parallel, streamed, over several turns, always valid."""

from collections.abc import Iterable, Mapping
from typing import Any

import jsonschema_rs
import orjson

from provider_core.conformance.check import Group
from provider_core.conformance.probe import Probe
from provider_core.conformance.verdict import Doubtful, Failed, NotApplicable, prefer, require
from provider_core.conformance.wire_rules import check_error

GROUP = Group("tools")


def _tool(name: str, description: str, parameters: dict[str, Any] | None = None) -> dict[str, Any]:
    function: dict[str, Any] = {"name": name, "description": description}
    if parameters is not None:
        function["parameters"] = parameters
    return {"type": "function", "function": function}


WEATHER = _tool(
    "get_weather",
    "Get the weather in a city",
    {
        "type": "object",
        "properties": {
            "city": {"type": "string", "description": "Name of the city"},
            "unit": {"type": "string", "enum": ["celsius", "fahrenheit"]},
        },
        "required": ["city"],
        "additionalProperties": False,
    },
)
TIME = _tool("get_time", "Get the current time")
BOOKING = _tool(
    "book_table",
    "Book a table in a restaurant",
    {
        "type": "object",
        "properties": {
            "guests": {"type": "integer", "minimum": 1, "maximum": 12},
            "outside": {"type": "boolean"},
            "names": {"type": "array", "items": {"type": "string", "maxLength": 12}, "maxItems": 2},
            "place": {
                "type": "object",
                "properties": {
                    "street": {"type": "string", "maxLength": 16},
                    "number": {"type": "integer"},
                },
                "required": ["street", "number"],
            },
        },
        "required": ["guests", "outside", "names", "place"],
    },
)
TOOLS = (WEATHER, TIME, BOOKING)
_ROME = "What is the weather in Rome?"
_LIMIT = {"max_tokens": 256}


def check_calls(
    calls: Iterable[tuple[str, str]], tools: Iterable[Mapping[str, Any]] = TOOLS
) -> int:
    """Judge calls as OpenRouter does: JSON, a known name, arguments valid under Draft 7.

    Args:
        calls: Names and arguments.
        tools: Those of the request.

    Returns:
        How many there were.

    Raises:
        Failed: One of them would count as bad.
    """
    schemas = {tool["function"]["name"]: tool["function"].get("parameters") for tool in tools}
    count = 0
    for name, arguments in calls:
        count += 1
        require(name in schemas, f"UnknownName: {name!r} is called, which was not offered")
        try:
            parsed = orjson.loads(arguments)
        except orjson.JSONDecodeError as error:
            raise Failed(f"InvalidJson: {name} is called with {arguments!r}") from error
        schema = schemas[name]
        if schema is None:
            require(parsed == {}, f"{name} takes nothing, and is called with {arguments!r}")
            continue
        found = next(jsonschema_rs.Draft7Validator(schema).iter_errors(parsed), None)
        if found is not None:
            raise Failed(f"SchemaMismatch: {name} is called with {arguments}: {found.message}")
    return count


async def _call(probe: Probe, text: Any = _ROME, **fields: Any) -> list[tuple[str, str]]:
    """Ask with tools; names and arguments of what is called, checked.

    Raises:
        NotApplicable: The model takes no tools, and is not listed with them.
    """
    body = {"tools": list(TOOLS), **_LIMIT, **fields}
    reply = await probe.ask(text, **body)
    if reply.status in {400, 404} and not probe.subject.declares("tools"):
        raise NotApplicable(f"refused with a {reply.status}, and not listed: {reply.excerpt}")
    choice = (await probe.chat(text, **body))["choices"][0]
    functions = [call["function"] for call in choice["message"].get("tool_calls", [])]
    calls = [(function["name"], function["arguments"]) for function in functions]
    if choice["finish_reason"] == "length":
        raise Doubtful(f"the call was cut at {body['max_tokens']} tokens")
    check_calls(calls, body["tools"])
    if calls:
        reason = choice["finish_reason"]
        require(reason == "tool_calls", f"finish_reason is {reason!r} with a complete call")
    return calls


def _said(calls: list[tuple[str, str]]) -> str:
    return ", ".join(f"{name}({arguments})" for name, arguments in calls)


@GROUP.check("auto", "tool_choice auto: the model calls what fits")
async def auto(probe: Probe) -> str:
    """Nothing forces it, so that a model may answer in words."""
    calls = await _call(probe, tool_choice="auto", tools=[WEATHER, TIME])
    prefer(calls, "the model answered in words, which it may")
    return _said(calls)


@GROUP.check("required", "tool_choice required: at least one call")
async def required(probe: Probe) -> str:
    """Even where nothing fits."""
    calls = await _call(probe, "Hello!", tool_choice="required")
    require(calls, "no tool was called")
    return _said(calls)


@GROUP.check("named", "A named tool is the one that is called")
async def named(probe: Probe) -> str:
    """Each of them, one without parameters and one with nested ones."""
    said: list[tuple[str, str]] = []
    for tool in TOOLS:
        name = tool["function"]["name"]
        choice = {"type": "function", "function": {"name": name}}
        reply = await probe.ask(_ROME, tools=list(TOOLS), tool_choice=choice, **_LIMIT)
        if reply.status == 400 and not probe.subject.declares("tools"):
            raise NotApplicable(f"refused with a 400, and not listed: {reply.excerpt}")
        body = await probe.chat(_ROME, tools=list(TOOLS), tool_choice=choice, **_LIMIT)
        functions = [c["function"] for c in body["choices"][0]["message"].get("tool_calls", [])]
        calls = [(function["name"], function["arguments"]) for function in functions]
        require([called for called, _ in calls] == [name], f"{name} was named, called: {calls}")
        if body["choices"][0]["finish_reason"] == "length":
            raise Doubtful(f"the call of {name} was cut at {_LIMIT['max_tokens']} tokens")
        check_calls(calls)
        said += calls
    return _said(said)


@GROUP.check("none", "tool_choice none: no call")
async def none(probe: Probe) -> str:
    """The tools are there, and not to be called."""
    calls = await _call(probe, tool_choice="none")
    require(not calls, f"called: {_said(calls)}")
    return "answered in words"


@GROUP.check("parallel", "Several calls in one answer")
async def parallel(probe: Probe) -> str:
    """Two cities; parallel_tool_calls false is one call at most."""
    text = "What is the weather in Rome and in Paris? Call the tool for each city."
    single = await _call(probe, text, parallel_tool_calls=False)
    require(len(single) <= 1, f"parallel_tool_calls false, and called: {_said(single)}")
    calls = await _call(probe, text)
    prefer(len(calls) > 1, f"the model made {len(calls)} call where two would fit")
    return _said(calls)


@GROUP.check("streamed", "Calls in a stream")
async def streamed(probe: Probe) -> str:
    """Index, id, type and name once; fragments that join to valid arguments."""
    fields = {"tools": list(TOOLS), "tool_choice": "required", **_LIMIT}
    await _call(probe, **fields)
    said = await probe.stream_chat(_ROME, **fields)
    calls = [(call["name"], call["arguments"]) for call in said.calls.get(0, [])]
    require(calls, "no tool was called in the stream")
    reason = said.finish_reasons[0]
    if reason == "length":
        raise Doubtful(f"the call was cut at {_LIMIT['max_tokens']} tokens")
    check_calls(calls)
    require(reason == "tool_calls", f"finish_reason is {reason!r} with a complete call")
    return _said(calls)


@GROUP.check("turns", "Results of tools over several turns")
async def turns(probe: Probe) -> str:
    """A call, its result, and the answer to it; arguments may be empty in the history."""
    history: list[dict[str, Any]] = [{"role": "user", "content": _ROME}]
    for number, arguments in enumerate(('{"city": "Rome"}', "", "{}")):
        name = "get_weather" if number == 0 else "get_time"
        call = {
            "id": f"call_{number}",
            "type": "function",
            "function": {"name": name, "arguments": arguments},
        }
        history += [
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": call["id"], "content": '{"result": "sunny"}'},
        ]
    await _call(probe, history)
    said = await probe.stream_chat(history, tools=list(TOOLS), **_LIMIT)
    text = said.text or _said([(c["name"], c["arguments"]) for c in said.calls.get(0, [])])
    return f"answered {text[:40]!r} to three results"


@GROUP.check("refused", "A named tool that is not offered is a 400")
async def refused(probe: Probe) -> str:
    """So is a tool without a name."""
    choice = {"type": "function", "function": {"name": "no_such_tool"}}
    bodies: list[dict[str, Any]] = [
        {"tools": [WEATHER], "tool_choice": choice},
        {"tools": [{"type": "function", "function": {}}]},
    ]
    for body in bodies:
        reply = await probe.ask(_ROME, **body)
        check_error(reply, 400, integer_code=probe.endpoint.is_openrouter)
    return "400 each"
