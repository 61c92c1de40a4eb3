"""Where the published clients are, and what their tests are marked with where they are missing."""

import shutil
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent
OWN_PYTHON = FOLDER / "python/.venv/bin/python"
"""Of clients that need other versions than ours."""

NODE = shutil.which("node")

_MISSING = "run make client-packages first"
OWN_MARKS = (pytest.mark.clients, pytest.mark.skipif(not OWN_PYTHON.exists(), reason=_MISSING))
NODE_MARKS = (
    pytest.mark.node,
    pytest.mark.skipif(NODE is None, reason="node is not installed"),
    pytest.mark.skipif(not (FOLDER / "node/node_modules").is_dir(), reason=_MISSING),
)
