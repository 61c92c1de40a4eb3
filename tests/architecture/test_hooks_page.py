"""docs/hooks.md is held to the code, its examples run, and every hook has a test of its name."""

import ast
import re
from pathlib import Path
from types import ModuleType

import pytest

from provider_core import hookspecs
from provider_core.plugins import PluginManager

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/hooks.md").read_text(encoding="utf-8")
SPECS = {
    node.name: node
    for node in ast.parse(Path(hookspecs.__file__).read_text(encoding="utf-8")).body
    if isinstance(node, ast.FunctionDef)
}
SECTIONS = dict(re.findall(r"^### (\w+)\n(.*?)(?=^##|\Z)", PAGE, re.DOTALL | re.MULTILINE))
EXAMPLES = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


def test_the_page_has_exactly_the_hooks() -> None:
    """Each hook has a section and no section is left of a hook that went."""
    assert sorted(SECTIONS) == sorted(SPECS)


@pytest.mark.parametrize("name", SPECS)
def test_the_signature_is_exact(name: str) -> None:
    """What the page says can be copied."""
    spec = SPECS[name]
    returns = ast.unparse(spec.returns) if spec.returns is not None else "None"

    assert f"`def {name}({ast.unparse(spec.args)}) -> {returns}`" in SECTIONS[name]


@pytest.mark.parametrize("name", SPECS)
def test_the_page_says_who_is_asked(name: str) -> None:
    """`first` on the page is `firstresult` in the code."""
    caller = getattr(PluginManager().hook, name)
    asked = re.search(r"^\| Asked \| (\w+)", SECTIONS[name], re.MULTILINE)

    assert asked is not None
    assert (asked[1] == "first") == bool(caller.spec.opts["firstresult"])


@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize("row", ["Asked", "When", "Where", "`None`", "Raising"])
def test_the_contract_is_whole(name: str, row: str) -> None:
    """When, on which thread, what `None` and an exception mean."""
    assert re.search(rf"^\| {re.escape(row)} \| \S", SECTIONS[name], re.MULTILINE)


def test_the_examples_are_one_working_plugin() -> None:
    """A reader can paste them: they run, and every hook and argument exists."""
    plugin = ModuleType("provider_acme")
    exec("\n".join(EXAMPLES), plugin.__dict__)  # noqa: S102 - the page's own code
    manager = PluginManager()

    manager.register(plugin, "acme")
    manager.check_pending()

    (info,) = manager.describe()
    assert sorted(info.hooks) == sorted(SPECS)


def test_every_hook_has_a_test_named_after_it() -> None:
    """`test_<hook>` shows how the core asks."""
    files = sorted((ROOT / "tests/unit/plugins").glob("test_*.py"))
    source = "".join(file.read_text(encoding="utf-8") for file in files)
    tests = set(re.findall(r"def (test_\w+)", source))

    assert {f"test_{name}" for name in SPECS} - tests == set()
