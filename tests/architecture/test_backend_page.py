"""docs/writing-a-backend.md shows the example backend as it is."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/writing-a-backend.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(?:toml|python)\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.parametrize("name", ["pyproject.toml", "provider_example.py"])
def test_the_page_shows_the_file(name: str) -> None:
    """What a reader copies is what the test suite serves from."""
    assert (ROOT / "tests/example_backend" / name).read_text(encoding="utf-8") in BLOCKS
