"""Model folders whose chat templates show tools, or open their reasoning."""

from pathlib import Path

from tests.serving import make_model_dir

_CHAT = """\
{%- if tools -%}
    {{- '<|im_start|>system\\n<tools>\\n' -}}
    {%- for tool in tools -%}{{- tool | tojson + '\\n' -}}{%- endfor -%}
    {{- '</tools><|im_end|>\\n' -}}
{%- endif -%}
{%- for message in messages -%}
    {{- '<|im_start|>' + message.role + '\\n' + message.content -}}
    {%- for call in message.tool_calls or [] -%}
        {{- '<tool_call>\\n{"name": "' + call.function.name + '", "arguments": ' -}}
        {{- call.function.arguments | tojson + '}\\n</tool_call>' -}}
    {%- endfor -%}
    {{- '<|im_end|>\\n' -}}
{%- endfor -%}
"""
TOOLS_TEMPLATE = _CHAT + "{{- '<|im_start|>assistant\\n' if add_generation_prompt -}}"
"""Hermes' syntax."""

REASONING_TEMPLATE = (
    _CHAT
    + """\
{%- if add_generation_prompt -%}
    {{- '<|im_start|>assistant\\n<think>\\n' -}}
    {{- '\\n</think>\\n\\n' if enable_thinking is defined and not enable_thinking -}}
{%- endif -%}
"""
)
"""Opens the reasoning in the prompt, and closes it again if it is told to."""

STUBBORN_TEMPLATE = _CHAT + "{{- '<|im_start|>assistant\\n<think>\\n' -}}"
"""Opens the reasoning, whatever it is told."""


def make_templated_dir(folder: Path, template: str) -> Path:
    """Write a model folder without weights, with this template."""
    make_model_dir(folder)
    (folder / "chat_template.jinja").write_text(template)
    return folder
