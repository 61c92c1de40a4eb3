"""Compiling chat templates so that `template_sandbox` sees every operation that can cost."""

from collections.abc import Callable
from typing import Any

from jinja2 import nodes
from jinja2.compiler import CodeGenerator, Frame
from jinja2.ext import Extension
from jinja2.parser import Parser

from provider_core.errors import ConfigurationError

MAX_DEPTH = 200  # of the syntax tree; published chat templates stay far below
_REFUSED_NODES = (nodes.Pow, nodes.Include, nodes.Import, nodes.FromImport, nodes.Extends)


class BoundedCodeGenerator(CodeGenerator):
    """Compiles the expressions that Jinja does not let an environment intercept."""

    def visit_Concat(self, node: nodes.Concat, frame: Frame) -> None:  # noqa: N802 - Jinja's name
        """`a ~ b`: joined by the environment."""
        self.write("environment.join_texts((")
        for part in node.nodes:
            self.visit(part, frame)
            self.write(", ")
        self.write("))")

    def visit_Compare(self, node: nodes.Compare, frame: Frame) -> None:  # noqa: N802
        """`a == b`, `a in b`: not before a look at the clock, which returns nothing."""
        self._wrap("environment.tick() or ", super().visit_Compare, node, frame)

    def visit_ExprStmt(self, node: nodes.ExprStmt, frame: Frame) -> None:  # noqa: ARG002, N802
        """A look at the clock; templates have no statement of this kind (see `add_ticks`)."""
        self.writeline("environment.tick()", node)

    def visit_List(self, node: nodes.List, frame: Frame) -> None:  # noqa: N802
        """A list display: paid for."""
        self._wrap("environment.paid(", super().visit_List, node, frame, ")")

    def visit_Dict(self, node: nodes.Dict, frame: Frame) -> None:  # noqa: N802
        """A mapping display: paid for."""
        self._wrap("environment.paid(", super().visit_Dict, node, frame, ")")

    def visit_Tuple(self, node: nodes.Tuple, frame: Frame) -> None:  # noqa: N802
        """A tuple display, paid for, or the targets of an assignment."""
        if node.ctx == "load":
            self._wrap("environment.paid(", super().visit_Tuple, node, frame, ")")
        else:
            super().visit_Tuple(node, frame)

    def visit_Getitem(self, node: nodes.Getitem, frame: Frame) -> None:  # noqa: N802
        """A subscript; a slice is a copy and is paid for."""
        if isinstance(node.arg, nodes.Slice):
            self._wrap("environment.paid(", super().visit_Getitem, node, frame, ")")
        else:
            super().visit_Getitem(node, frame)

    def _wrap(
        self,
        before: str,
        visit: Callable[[Any, Frame], None],
        node: nodes.Expr,
        frame: Frame,
        after: str = "",
    ) -> None:
        self.write(f"({before}")
        visit(node, frame)
        self.write(f"{after})")


class GenerationBlock(Extension):
    """`{% generation %}`, which marks what training learns from; here only its content counts."""

    tags = {"generation"}  # noqa: RUF012 - Jinja's own declaration

    def parse(self, parser: Parser) -> list[nodes.Node]:
        """Return the block's content."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def add_ticks(tree: nodes.Template) -> nodes.Template:
    """Make every turn of every loop look at the clock.

    Raises:
        ConfigurationError: The template uses what cannot be bounded, or nests too deep.
    """
    _check(tree)
    for loop in tree.find_all(nodes.For):
        loop.body.insert(0, nodes.ExprStmt(nodes.Const(None), lineno=loop.lineno))
    return tree


def _check(tree: nodes.Template) -> None:
    level: list[nodes.Node] = [tree]
    for _ in range(MAX_DEPTH):
        level = [child for node in level for child in node.iter_child_nodes()]
        for node in level:
            if isinstance(node, _REFUSED_NODES):
                name = type(node).__name__.lower()
                raise ConfigurationError(f"the chat template uses {name!r}, line {node.lineno}")
        if not level:
            return
    raise ConfigurationError(f"the chat template nests deeper than {MAX_DEPTH}")
