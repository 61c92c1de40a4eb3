"""The page on this dialect, held to the code."""

import re
from pathlib import Path

from provider_core.dialects.anthropic.errors import _TYPE_BY_STATUS
from provider_core.dialects.anthropic.protocol import MessagesRequest
from provider_core.dialects.anthropic.unsupported import UNSUPPORTED_FIELDS

PAGE = (Path(__file__).parents[4] / "docs" / "anthropic.md").read_text()


def test_every_field_is_on_the_page_and_nothing_else() -> None:
    """A field that is added, renamed or taken away changes the page, too."""
    section = PAGE.partition("## Fields\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)
    refused = section.partition("Refused unless")[2].partition(". ")[0]

    assert set(rows) == set(MessagesRequest.model_fields)
    assert set(re.findall(r"`(\w+)`", refused)) == set(UNSUPPORTED_FIELDS)


def test_every_type_of_error_is_on_the_page() -> None:
    """Beside its status."""
    section = PAGE.partition("## Errors\n")[2]
    for status, name in _TYPE_BY_STATUS.items():
        if status != 409:  # nothing here conflicts
            assert str(status) in section
            assert f"`{name}`" in section
