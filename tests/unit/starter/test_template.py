"""The chat template and the training renderer give the same text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from jinja2.sandbox import ImmutableSandboxedEnvironment

from provider_starter.recipe.conversation import Call, Message, render
from provider_starter.recipe.lexicon import Lexicon
from provider_starter.recipe.mixture import SKILLS, Mixture

TEMPLATE = Path(__file__).parents[3] / "plugins/provider_starter/model/chat_template.jinja"


def to_json(value: object) -> str:
    """Return JSON as the template filter of servers gives it: unsorted and unescaped."""
    return json.dumps(value, ensure_ascii=False)


@pytest.fixture(params=[True, False], ids=["trimmed", "untrimmed"], name="template")
def _template(request: pytest.FixtureRequest) -> Any:  # a compiled template has no public type
    trim = bool(request.param)
    environment = ImmutableSandboxedEnvironment(trim_blocks=trim, lstrip_blocks=trim)
    environment.filters["tojson"] = to_json
    return environment.from_string(TEMPLATE.read_text(encoding="utf-8"))


@pytest.mark.parametrize("skill", [*SKILLS, "mixed"])
def test_template_renders_what_was_trained(template: Any, skill: str) -> None:
    """Every kind of conversation reads the same in training and when serving."""
    mixture = Mixture(5, Lexicon())
    for _ in range(15):
        talk = mixture.of(skill)
        messages = [m.as_dict() for m in talk.messages]
        rendered = template.render(messages=messages, tools=talk.tools or None)
        assert rendered == render(talk.messages, talk.tools)


def test_template_opens_an_answer(template: Any) -> None:
    """A generation prompt ends with the head of an assistant turn."""
    turn = Message("user", "It's <b> & 'c'")
    rendered = template.render(messages=[turn.as_dict()], add_generation_prompt=True)
    assert rendered == render((turn,), open_answer=True)


def test_template_takes_arguments_as_text(template: Any) -> None:
    """Arguments may be JSON text, and stay as they are."""
    call = {"function": {"name": "go", "arguments": '{"to": "it\'s"}'}}
    rendered = template.render(messages=[{"role": "assistant", "tool_calls": [call]}])
    assert rendered == render((Message("assistant", "", (Call("go", {"to": "it's"}),)),))


def test_template_joins_results_in_one_turn(template: Any) -> None:
    """Results that follow one another stand in a single user turn."""
    turns = (Message("tool", "1"), Message("tool", "2"), Message("user", "So?"))
    rendered = template.render(messages=[t.as_dict() for t in turns])
    assert rendered == render(turns)
    assert rendered.count("<|im_start|>") == 2


def test_template_takes_developer_as_system(template: Any) -> None:
    """The developer role of newer clients is the system role, and text parts are joined."""
    parts = [{"type": "text", "text": "Be "}, {"type": "text", "text": "brief."}]
    rendered = template.render(messages=[{"role": "developer", "content": parts}])
    assert rendered == render((Message("system", "Be brief."),))


def test_template_takes_bare_functions(template: Any) -> None:
    """A tool may come without its `function` wrapper."""
    bare = {"name": "go", "parameters": {"type": "object", "properties": {}}}
    wrapped = template.render(messages=[], tools=[{"type": "function", "function": bare}])
    assert template.render(messages=[], tools=[bare]) == wrapped
