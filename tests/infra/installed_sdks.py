"""Platforms' own packages, an environment each: what one of them needs, another refuses."""

import json
import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parent / "sdks"
NAMES = sorted(path.stem for path in FOLDER.glob("*.txt"))
MARKS = (
    pytest.mark.sdk,
    pytest.mark.skipif(
        not all((FOLDER / ".venv" / name / ".installed").exists() for name in NAMES),
        reason="run make client-packages first",
    ),
)

# Tokens of the right form, and a port that nobody listens on: no judge has an account.
_NOBODY = {
    "BEAM_TOKEN": "t" * 64,
    "GATEWAY_HOST": "127.0.0.1",
    "GATEWAY_PORT": "1",
    "FAL_KEY": "id:secret",
}


@dataclass(frozen=True)
class Verdict:
    """What a platform's package said of one file.

    Attributes:
        declared: What the file declares, by the package's own names.
        refused: Why it was not taken; empty if it was.
    """

    declared: dict[str, Any] = field(default_factory=dict)
    refused: str = ""


def verdicts(name: str, paths: Sequence[Path], folder: Path) -> list[Verdict]:
    """Have one package read files.

    Args:
        name: Of its list of requirements.
        paths: Read one after the other, in one process.
        folder: Where it runs, and may write.
    """
    python = FOLDER / ".venv" / name / "bin/python"
    run = subprocess.run(
        [python, FOLDER / f"judge_{name}.py", *paths],
        cwd=folder,
        env=_NOBODY | {"HOME": str(folder), "PATH": os.defpath},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return [Verdict(**each) for each in json.loads(run.stdout.splitlines()[-1])]
