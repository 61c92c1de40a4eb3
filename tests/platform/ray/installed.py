"""Where Ray is, and what its tests are marked with where it is missing."""

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PYTHON = ROOT / "tests/ray/.venv/bin/python"
"""Of an environment of its own: Ray is half a gigabyte."""

MARKS = (
    pytest.mark.ray,
    pytest.mark.skipif(not PYTHON.exists(), reason="run make client-packages first"),
)
