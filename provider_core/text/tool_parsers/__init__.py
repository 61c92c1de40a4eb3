"""How each family of models writes calls of tools, and which one a model belongs to.

`TOOL_FAMILIES` is in the order in which a chat template is asked: the first whose markup it holds
is its model's.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from provider_core.text.tool_parsers import (
    deepseek,
    elements,
    gemma,
    generic,
    harmony,
    hermes,
    llama,
    mistral,
    phi,
)
from provider_core.tool_calling import ToolParser
from provider_core.types import Tool


@dataclass(frozen=True, slots=True)
class ToolFamily:
    """Models that write calls alike.

    Attributes:
        name: As `tool_parser` says it.
        marks: What a chat template of the family holds, all of it.
        make: The parser of a request with these tools.
        frames_replies: Replies are read by the parser even where nothing can be called.
    """

    name: str
    marks: tuple[str, ...]
    make: Callable[[Sequence[Tool]], ToolParser]
    frames_replies: bool = False

    def shows_in(self, template: str) -> bool:
        """Whether a template is of this family."""
        return all(mark in template for mark in self.marks)


_FAMILIES = (
    ToolFamily("gpt_oss", ("<|channel|>",), lambda _: harmony.PARSER, frames_replies=True),
    ToolFamily("deepseek_v3", ("tool\u2581sep", "```json"), lambda _: deepseek.V3),
    ToolFamily("deepseek_v31", ("tool\u2581sep",), lambda _: deepseek.V31),
    ToolFamily("mistral_args", ("[TOOL_CALLS]", "[ARGS]"), lambda _: mistral.NAMED),
    ToolFamily("mistral", ("[TOOL_CALLS]",), lambda _: mistral.LISTED),
    ToolFamily("gemma4", ("<|tool_call>",), lambda _: gemma.GEMMA_4),
    ToolFamily("function_gemma", ("<start_function_call>",), lambda _: gemma.FUNCTION_GEMMA),
    ToolFamily("phi4", ("<|/tool|>",), lambda _: phi.PHI),
    ToolFamily("granite", ("<|tool_call|>",), lambda _: phi.GRANITE),
    ToolFamily("glm", ("<arg_key>",), elements.make_glm_parser),
    ToolFamily("seed", ("<seed:tool_call>",), elements.make_seed_parser),
    ToolFamily("qwen3_coder", ("<function=",), elements.make_qwen_parser),
    ToolFamily("hermes", ("<tool_call>",), lambda _: hermes.PARSER),
    ToolFamily("llama3", ("ipython",), llama.make_parser),
    ToolFamily("generic", (), generic.make_parser),
)

TOOL_FAMILIES = {family.name: family for family in _FAMILIES}
