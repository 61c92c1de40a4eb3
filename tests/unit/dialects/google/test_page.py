"""The page on this dialect, held to the code."""

import re
from pathlib import Path

from pydantic.alias_generators import to_camel

from provider_core.dialects.google.embeddings import _INPUT_TYPE_BY_TASK
from provider_core.dialects.google.protocol import GenerationConfig
from provider_core.dialects.google.unsupported import UNSUPPORTED_CONFIG, UNSUPPORTED_FIELDS

PAGE = (Path(__file__).parents[4] / "docs" / "google.md").read_text()


def test_every_field_is_on_the_page_and_nothing_else() -> None:
    """A field that is added, renamed or taken away changes the page, too."""
    table = PAGE.partition("| field of `generationConfig` |")[2].partition("\n\n")[0]
    cells = re.findall(r"^\|( `.*?`) \|", table, re.MULTILINE)
    refused = PAGE.partition("Refused unless")[2].partition("\n\n")[0]

    assert set(re.findall(r"`(\w+)`", " ".join(cells))) == {
        to_camel(name) for name in GenerationConfig.model_fields
    }
    for name in (*UNSUPPORTED_FIELDS, *UNSUPPORTED_CONFIG):
        assert f"`{name}`" in refused


def test_the_tasks_that_are_queries_are_on_the_page() -> None:
    """And the one that is a document."""
    section = PAGE.partition("## Embeddings\n")[2].partition("\n## ")[0]
    for name, kind in _INPUT_TYPE_BY_TASK.items():
        assert (f"`{name}`" in section) is (kind is not None)
