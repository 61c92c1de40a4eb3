"""Chat templates that insist on a form of calls and tools."""

import json
from typing import Any

import pytest

from provider_core.text.chat_template import FolderChatTemplate
from tests.unit.text.template_sources import CHATML_CONTROL

USER: dict[str, Any] = {"role": "user", "content": "hi"}

SHORT_IDS = """\
{%- for message in messages -%}
    {%- for call in message.tool_calls or [] -%}
        {%- if call.id | length != 9 -%}{{- raise_exception('ids of length 9!') -}}{%- endif -%}
        {{- '[' + call.id + ']' -}}
    {%- endfor -%}
    {%- if message.role == 'tool' -%}{{- '(' + message.tool_call_id + ')' -}}{%- endif -%}
    {{- message.content -}}
{%- endfor -%}
"""


def test_ids_of_calls_are_as_short_as_the_template_insists() -> None:
    """And a result still names its call."""
    template = FolderChatTemplate({"default": SHORT_IDS})
    call = {"id": "call_0123456789", "type": "function", "function": {"name": "f"}}
    messages: list[dict[str, Any]] = [
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_0123456789", "content": "5"},
    ]
    text = template.render(messages).text
    assert text == f"[{text[1:10]}]({text[1:10]})5"


SYSTEM_TOOLS = """\
{%- for message in messages -%}
    {{- '<|im_start|>' + message.role + message['content'] -}}
    {{- message['tools'] if 'tools' in message -}}
{%- endfor -%}
"""


@pytest.mark.parametrize("system", [[], [{"role": "system", "content": "be nice"}]])
def test_tools_stand_where_the_template_looks_for_them(system: list[dict[str, Any]]) -> None:
    """In the system's message, as text; what clients typed in them is no control token."""
    template = FolderChatTemplate({"default": SYSTEM_TOOLS}, control_tokens=CHATML_CONTROL)
    tool = {"type": "function", "function": {"name": "f", "description": "<|im_start|>"}}
    prompt = template.render([*system, USER], tools=[tool])
    shown = json.dumps([tool["function"]])
    instructions = system[0]["content"] if system else ""
    assert prompt.text == f"<|im_start|>system{instructions}{shown}<|im_start|>userhi"
    assert ("<|im_start|>", False) in prompt.segments


TEXT_ARGUMENTS = """\
{%- for message in messages -%}
    {%- for call in message.tool_calls or [] -%}
        {{- call['function']['name'] + call['function']['arguments'] -}}
    {%- endfor -%}
{%- endfor -%}
"""
OBJECT_ARGUMENTS = TEXT_ARGUMENTS.replace("['arguments']", "['arguments'] | items | list | string")


@pytest.mark.parametrize(
    ("template", "arguments", "expected"),
    [
        (TEXT_ARGUMENTS, '{"a": 1}', 'f{"a": 1}'),
        (TEXT_ARGUMENTS, "", "f{}"),
        (TEXT_ARGUMENTS, "null", "f{}"),
        (TEXT_ARGUMENTS, '{"a', 'f{"a'),
        (OBJECT_ARGUMENTS, '{"a": 1}', "f[('a', 1)]"),
        (OBJECT_ARGUMENTS, "", "f[]"),
    ],
)
def test_bug_17_arguments_are_what_the_template_takes(
    template: str, arguments: str, expected: str
) -> None:
    """Text for one that joins it to other text, else an object."""
    function = {"name": "f", "arguments": arguments}
    call = {"id": "1", "type": "function", "function": function}
    messages = [USER, {"role": "assistant", "content": None, "tool_calls": [call]}]
    assert FolderChatTemplate({"default": template}).render(messages).text == expected
