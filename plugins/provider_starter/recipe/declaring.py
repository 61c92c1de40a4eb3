"""Declare actions as tools, under usual or unusual names."""

from __future__ import annotations

from dataclasses import dataclass

from provider_starter.recipe.actions import Action, Role
from provider_starter.recipe.conversation import Json
from provider_starter.recipe.phrasing import Draw

_PREFIXES = ("fn_", "do_", "tool_", "my_", "api_")
_SUFFIXES = ("_tool", "_v2", "_api", "_now")


@dataclass(frozen=True, slots=True)
class Tool:
    """An action under the names that it has in one conversation."""

    action: Action
    name: str
    roles: dict[str, Role]  # by parameter name, in declared order
    declaration: dict[str, Json]


def declare(draw: Draw, action: Action, *, wild: bool) -> Tool:
    """Return the action as a declared tool; `wild` ones have unusual names."""
    name = _tool_name(draw, action, wild=wild)
    roles: dict[str, Role] = {}
    for role in action.roles:
        param = _param_name(draw, role, wild=wild)
        roles[param if param not in roles else f"{param}_{role.slot}"] = role
    described = wild or draw.chance(0.8)
    if action.extra and draw.chance(0.4):
        roles[draw.pick(action.extra.names)] = action.extra
    properties = {p: _property(draw, r, described=described) for p, r in roles.items()}
    order = list(properties)
    if draw.chance(0.3):
        draw.rng.shuffle(order)
    schema: dict[str, Json] = {"type": "object", "properties": {p: properties[p] for p in order}}
    if draw.chance(0.85):
        schema["required"] = [p for p in order if roles[p] is not action.extra]
    if draw.chance(0.1):
        schema["additionalProperties"] = False
    function: dict[str, Json] = {"name": name}
    if described or draw.chance(0.7):
        function["description"] = draw.pick(action.about)
    function["parameters"] = schema
    if draw.chance(0.05):
        function["strict"] = True
    declaration = {"type": "function", "function": function}
    return Tool(action, name, {p: roles[p] for p in order}, declaration)


def _tool_name(draw: Draw, action: Action, *, wild: bool) -> str:
    name = draw.pick(action.names)
    if not wild:
        return name
    roll = draw.rng.random()
    if roll < 0.25:
        name = draw.made_up()
    elif roll < 0.5:
        name = f"{name}_{draw.made_up()}"
    return _styled(draw, name)


def _param_name(draw: Draw, role: Role, *, wild: bool) -> str:
    if wild and draw.chance(0.4):
        if draw.chance(0.7):
            return draw.made_up()
        return f"{draw.made_up()}_{draw.pick(role.names)}"
    name = draw.pick(role.names)
    if wild and draw.chance(0.1):
        return _styled(draw, f"{name}_{draw.pick(('name', 'value', 'id', 'text'))}")
    return name


def _property(draw: Draw, role: Role, *, described: bool) -> dict[str, Json]:
    spec: dict[str, Json] = {"type": role.type}
    if role.choices:
        spec["enum"] = list(role.choices)
    if described:
        spec["description"] = draw.pick(role.about)
    return spec


def _styled(draw: Draw, name: str) -> str:
    """Return the name in another style: camel case, dashes, a prefix or a suffix."""
    roll = draw.rng.random()
    if roll < 0.15:
        head, *tail = name.split("_")
        return head + "".join(t.capitalize() for t in tail)
    if roll < 0.2:
        return name.replace("_", "-")
    if roll < 0.3:
        return draw.pick(_PREFIXES) + name
    if roll < 0.35:
        return name + draw.pick(_SUFFIXES)
    return name
