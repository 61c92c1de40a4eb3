"""Tools: calls, two calls, none that fits, and answers after a result."""

from __future__ import annotations

import json
from collections.abc import Callable

from provider_starter.recipe.actions import COMPOSED, HELD_COMPOSED, REALISTIC, Action
from provider_starter.recipe.conversation import Call, Conversation, Json, Message
from provider_starter.recipe.declaring import Tool, declare
from provider_starter.recipe.phrasing import Draw, phrases
from provider_starter.recipe.skills_chat import NO_TOOL, REFUSAL

Plain = Callable[[], Conversation]


def _use(draw: Draw, tool: Tool) -> tuple[str, Call, dict[str, Json]]:
    """Return a request for the tool, the right call, and the value of each slot."""
    values = {role.slot: role.make(draw) for role in tool.action.roles}
    quoted = draw.chance(0.2)
    shown = {
        r.slot: f'"{values[r.slot]}"'
        if quoted and r.type == "string" and not r.choices and " " in str(values[r.slot])
        else values[r.slot]
        for r in tool.action.roles
    }
    held_action = tool.action.names[0] in HELD_COMPOSED and tool.action in COMPOSED
    cores = tool.action.train if held_action or not draw.held else tool.action.held
    draw.core = draw.pick(cores)
    extra = tool.action.extra
    core = draw.core
    if extra and extra in tool.roles.values() and draw.chance(0.4):
        values[extra.slot] = extra.make(draw)
        shown[extra.slot] = values[extra.slot]
        core += draw.pick((" in {unit}", ", in {unit}", " (in |in degrees ){unit}"))
    ask = draw.compose(core, tool.action.mood, **shown)
    return (
        ask,
        Call(tool.name, {p: values[r.slot] for p, r in tool.roles.items() if r.slot in values}),
        values,
    )


def _pool(draw: Draw, *, composed: bool) -> list[Action]:
    if not composed:
        return list(REALISTIC)
    return [a for a in COMPOSED if (a.names[0] in HELD_COMPOSED) <= draw.held]


def _toolbox(draw: Draw, first: Action | None, *, composed: bool, most: int = 5) -> list[Tool]:
    """Return some tools, one of them for the given action, with distinct names."""
    pool = [a for a in _pool(draw, composed=composed) if a is not first]
    count = min(len(pool), draw.pick((0, 1, 1, 2, 2, 3, most - 1)) + (first is None))
    actions = draw.rng.sample(pool, count) + ([first] if first else [])
    draw.rng.shuffle(actions)
    tools: dict[str, Tool] = {}
    for action in actions:
        tool = declare(draw, action, wild=composed)
        if tool.name in tools:
            tool = declare(draw, action, wild=composed)
        tools[tool.name] = tool
    if first and not any(t.action is first for t in tools.values()):
        return _toolbox(draw, first, composed=composed, most=most)
    return list(tools.values())


def _system(draw: Draw) -> tuple[Message, ...]:
    if draw.chance(0.8):
        return ()
    return (
        Message(
            "system",
            draw.pick(
                (
                    "You are a helpful assistant.",
                    "Use the tools when they fit.",
                    "You can call tools.",
                    "Be brief.",
                    "You are a helpful assistant with tools.",
                )
            ),
        ),
    )


def call(draw: Draw, *, composed: bool) -> Conversation:
    """Ask for something that one of the tools does."""
    pool = _pool(draw, composed=composed)
    if composed and draw.held and draw.chance(0.5):
        pool = [a for a in pool if a.names[0] in HELD_COMPOSED]
    first = draw.pick(pool)
    tools = _toolbox(draw, first, composed=composed)
    chosen = next(t for t in tools if t.action is first)
    ask, made, _ = _use(draw, chosen)
    messages = (*_system(draw), Message("user", ask), Message("assistant", "", (made,)))
    skill = "composed tools" if composed else "realistic tools"
    return Conversation(
        skill,
        messages,
        tuple(t.declaration for t in tools),
        "call",
        phrasing=draw.core,
        item=str(made.arguments),
    )


_PAIRS = {name: phrases(f"both_{name}") for name in ("get_weather", "get_time")}


def two_calls(draw: Draw) -> Conversation:
    """Ask for two things at once."""
    composed = draw.chance(0.35)
    if not composed and draw.chance(0.5):
        action = draw.pick(tuple(a for a in REALISTIC if a.names[0] in _PAIRS))
        tools = _toolbox(draw, action, composed=False, most=4)
        tool = next(t for t in tools if t.action is action)
        a, b = draw.city(), draw.city()
        ask = draw.phrase(_PAIRS[action.names[0]], a=a, b=b)
        calls = tuple(Call(tool.name, {next(iter(tool.roles)): city}) for city in (a, b))
    else:
        pool = _pool(draw, composed=composed)
        action = draw.pick(pool)
        tools = _toolbox(draw, action, composed=composed, most=4)
        other = draw.pick(tools)
        uses = [
            _use(draw, t)
            for t in draw.rng.sample([next(t for t in tools if t.action is action), other], 2)
        ]
        second = uses[1][0]
        if draw.chance(0.6):
            second = second[:1].lower() + second[1:]
        joiner = draw.pick(
            (" and ", " and ", ", and ", " and then ", ", then ", " Then ", " And ", " Also, ")
        )
        head = uses[0][0].rstrip(".?!") if not joiner[1].isupper() else uses[0][0]
        ask = head + joiner + second
        calls = tuple(u[1] for u in uses)
    messages = (*_system(draw), Message("user", ask), Message("assistant", "", calls))
    return Conversation(
        "two calls",
        messages,
        tuple(t.declaration for t in tools),
        "call",
        phrasing=draw.core,
        item=str(calls),
    )


def none_fits(draw: Draw, plain: Plain) -> Conversation:
    """Give tools, but ask for something that none of them does."""
    composed = draw.chance(0.5)
    if draw.chance(0.5):
        talk = plain()
        rivals = _RIVALS.get(talk.skill, frozenset())
        tools = [
            t for t in _toolbox(draw, None, composed=composed) if t.action.names[0] not in rivals
        ]
        if not tools:
            return none_fits(draw, plain)
        return Conversation(
            "none fits",
            (*_system(draw), *talk.messages),
            tuple(t.declaration for t in tools),
            talk.kind,
            talk.accept,
            talk.count,
            talk.phrasing,
            talk.item,
        )
    pool = REALISTIC if not draw.held or draw.chance(0.7) else tuple(_pool(draw, composed=True))
    if not draw.held and draw.chance(0.35):
        pool = tuple(_pool(draw, composed=True))
    wanted = draw.pick(tuple(a for a in pool if a.names[0] != "calculator"))
    tools = [
        t
        for t in _toolbox(draw, None, composed=composed)
        if t.action is not wanted and not _alike(t.action, wanted)
    ]
    if not tools:
        return none_fits(draw, plain)
    ask, _, _ = _use(draw, declare(draw, wanted, wild=False))
    messages = (*_system(draw), Message("user", ask), Message("assistant", NO_TOOL))
    return Conversation(
        "none fits",
        messages,
        tuple(t.declaration for t in tools),
        "refusal",
        accept=(REFUSAL,),
        phrasing=draw.core,
        item=ask,
    )


_RIVALS: dict[str, frozenset[str]] = {  # tools that would serve for a request of that skill
    "add": frozenset({"calculator"}),
    "subtract": frozenset({"calculator"}),
    "multiply": frozenset({"calculator"}),
    "copy": frozenset({"send_message"}),
    "refusal": frozenset(
        {"web_search", "get_news", "translate", "find", "count", "get_stock_price"}
    ),
}
_KIN = (
    {"web_search", "get_news", "find", "get_stock_price", "read_file"},
    {"read_file", "list_files"},
    {"get_time", "get_date", "create_event"},
    {"find", "get_location"},
    {"send_email", "send_message", "lend"},
    {"create_event", "add_todo", "create", "set_timer", "book_table"},
    {"count", "find"},
    {"order", "create", "lend", "book_table", "play_music"},
    {"delete", "move"},
    {"paint", "switch", "rename", "rate"},
    {"switch", "play_music"},
    {"repair", "order"},
)


def _alike(one: Action, other: Action) -> bool:
    names = {one.names[0], other.names[0]}
    return any(names <= kin for kin in _KIN)


def after_result(draw: Draw) -> Conversation:
    """Answer in words once the tool has answered."""
    composed = draw.chance(0.35)
    first = (
        draw.pick(_pool(draw, composed=composed)) if draw.chance(0.5) else draw.pick(REALISTIC[:2])
    )
    composed = first in COMPOSED
    tools = _toolbox(draw, first, composed=composed, most=3)
    chosen = next(t for t in tools if t.action is first)
    ask, made, values = _use(draw, chosen)
    result, answer = _result(draw, first, values)
    text = result if isinstance(result, str) else json.dumps(result, ensure_ascii=False)
    messages = (
        *_system(draw),
        Message("user", ask),
        Message("assistant", "", (made,)),
        Message("tool", text),
        Message("assistant", answer),
    )
    if not draw.held and draw.chance(0.3):  # and then a second request
        ask, made, _ = _use(draw, draw.pick(tools))
        messages += (Message("user", ask), Message("assistant", "", (made,)))
    declared = tuple(t.declaration for t in tools)
    return Conversation("answer after result", messages, declared, phrasing=draw.core, item=text)


def _result(draw: Draw, action: Action, values: dict[str, Json]) -> tuple[Json, str]:
    """Return what the tool says, and how it is told."""
    if draw.chance(0.1):
        why = draw.pick(
            (
                "not found",
                "timeout",
                "access denied",
                f"unknown {draw.word()}",
                "service not available",
            )
        )
        return {draw.pick(("error", "error", "error", "message")): why} if draw.chance(
            0.7
        ) else f"Error: {why}", f"Sorry, the tool failed: {why}."
    if action.names[0] == "get_weather" and draw.chance(0.9):
        degrees, sky = (
            draw.number(-15, 42),
            draw.pick(("sunny", "cloudy", "rainy", "windy", "clear", "foggy", "snowy", "stormy")),
        )
        unit = draw.pick(("C", "C", "F", ""))
        heat: Json = degrees if draw.chance(0.7) else f"{degrees}°{unit}"
        shown = {
            draw.pick(("temperature", "temp", "degrees")): heat,
            draw.pick(("condition", "sky", "conditions", "description", "weather")): sky,
        }
        if draw.chance(0.3):
            shown = {"city": values["city"]} | shown
        if draw.chance(0.2):
            return (
                f"{sky}, {degrees} degrees",
                f"It is {degrees} degrees and {sky} in {values['city']}.",
            )
        return shown, f"It is {degrees} degrees and {sky} in {values['city']}."
    if action.names[0] == "get_time" and draw.chance(0.9):
        time = f"{draw.number(0, 23):02d}:{draw.number(0, 59):02d}"
        return (
            time
            if draw.chance(0.4)
            else {draw.pick(("time", "current_time", "now", "local_time")): time}
        ), f"It is {time} in {values['city']}."
    if draw.chance(0.35):
        done = draw.pick(("ok", "done", "success", "sent", "created", "saved"))
        return (
            done
            if draw.chance(0.5)
            else {draw.pick(("status", "result")): done}
            if draw.chance(0.7)
            else {"ok": True, "status": done}
        ), "Done!"
    key = draw.pick(
        ("result", "value", "answer", "output", "price", "place", "total", draw.made_up())
    )
    value: Json = (
        draw.number(0, 9999)
        if draw.chance(0.4)
        else " ".join(draw.word() for _ in range(draw.number(1, 4)))
    )
    if draw.chance(0.35):
        return str(value), f"The result is {value}."
    return {key: value}, f"The {key} is {value}."
