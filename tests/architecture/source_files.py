"""The project's own Python files, as the architecture tests read them."""

import ast
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

ROOT = Path(__file__).parents[2]
SHIPPED = ("provider_core", "plugins", "handlers")


@dataclass(frozen=True)
class SourceFile:
    """One file of ours.

    Attributes:
        path: Relative to the root.
    """

    path: Path

    @property
    def module(self) -> str:
        """Its import name: `plugins/provider_x/y.py` is `provider_x.y`."""
        parts = self.path.with_suffix("").parts
        parts = parts[1:] if parts[0] in {"plugins", "handlers"} else parts
        return ".".join(part for part in parts if part != "__init__")

    @cached_property
    def tree(self) -> ast.Module:
        """Its syntax."""
        return ast.parse(self.text, str(self.path))

    @property
    def text(self) -> str:
        """Its content."""
        return (ROOT / self.path).read_text(encoding="utf-8")

    def imports(self) -> Iterator[str]:
        """Full names of what it imports, in functions too; `from a import b` gives `a.b`."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                source = ("." * node.level) + (node.module or "")
                yield from (f"{source}.{alias.name}" for alias in node.names)


def source_files(*folders: str) -> list[SourceFile]:
    """All Python files below these folders that version control knows or would take."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", *folders],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    paths = (Path(line) for line in sorted(set(listed.stdout.splitlines())))
    return [SourceFile(path) for path in paths if path.suffix == ".py" and (ROOT / path).exists()]
