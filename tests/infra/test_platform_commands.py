"""Commands of platforms' own tools, as the pages of `docs/deploy` show them."""

import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from tests.infra import images
from tests.infra.installed_sdks import FOLDER, MARKS

pytestmark = list(MARKS)

TOOLS = ("beam", "fal", "modal")
COMMANDS = (
    "beam configure",
    "beam deploy",
    "beam secret create",
    "fal auth login",
    "fal deploy",
    "fal secrets set",
    "modal deploy",
    "modal secret create",
    "modal setup",
)


def calls(tool: str) -> list[str]:
    """What its page has a reader call it with, a line each."""
    page = (images.ROOT / f"docs/deploy/{tool}.md").read_text(encoding="utf-8")
    typed = re.findall(r"^```sh\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    return re.findall(rf"(?:^|\(|&& )({tool} [^|)\n]*)", "".join(typed), re.MULTILINE)


def test_each_call_is_of_a_command() -> None:
    """Of one of those that are judged here, all of which are called."""
    called = [call for tool in TOOLS for call in calls(tool)]
    assert [call for call in called if not call.startswith(COMMANDS)] == []
    assert [each for each in COMMANDS if not any(call.startswith(each) for call in called)] == []


@pytest.mark.parametrize("command", COMMANDS)
def test_the_tool_has_the_command_and_its_options(command: str, tmp_path: Path) -> None:
    """By its own help."""
    tool, *words = command.split()
    run = subprocess.run(
        [FOLDER / ".venv" / tool / "bin" / tool, *words, "--help"],
        env={"HOME": str(tmp_path), "PATH": os.defpath, "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    used = {
        word
        for call in calls(tool)
        if call.startswith(command)
        for word in shlex.split(call)
        if word.startswith("-")
    }
    assert [option for option in used if not re.search(rf"{option}\b", run.stdout)] == []
