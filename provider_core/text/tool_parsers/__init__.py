"""How each family of models writes calls of tools, and which one a model belongs to.

`TOOL_FAMILIES` is in the order in which a chat template is asked: the first whose markup it holds
is its model's.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from provider_core.text.tool_parsers import hermes
from provider_core.tool_calling import ToolParser
from provider_core.types import Tool


@dataclass(frozen=True, slots=True)
class ToolFamily:
    """Models that write calls alike.

    Attributes:
        name: As `tool_parser` says it.
        marks: Text that a chat template of the family holds, any of them; none fits every template.
        make: The parser of a request with these tools.
    """

    name: str
    marks: tuple[str, ...]
    make: Callable[[Sequence[Tool]], ToolParser]

    def shows_in(self, template: str) -> bool:
        """Whether a template is of this family."""
        return not self.marks or any(mark in template for mark in self.marks)


_FAMILIES = (ToolFamily("hermes", ("<tool_call>",), lambda _: hermes.PARSER),)

TOOL_FAMILIES = {family.name: family for family in _FAMILIES}
