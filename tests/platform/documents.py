"""The listings of a page under docs/deploy."""

import re

from tests.architecture.source_files import ROOT

_NAMED = re.compile(r"^`([\w.]+)`:\n\n```\w+\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_COMMANDS = re.compile(r"^```bash\n(.*?)^```$", re.MULTILINE | re.DOTALL)
MAX_COMMANDS = 10


def files_of(page: str) -> dict[str, str]:
    """The files that a page tells to write, by name."""
    return dict(_NAMED.findall(read(page)))


def commands_of(page: str) -> list[str]:
    """The lines that it tells to type, continued ones joined."""
    found = _COMMANDS.search(read(page))
    assert found is not None
    return found[1].replace("\\\n", " ").strip().splitlines()


def read(page: str) -> str:
    """Its text."""
    return (ROOT / "docs/deploy" / page).read_text(encoding="utf-8")
