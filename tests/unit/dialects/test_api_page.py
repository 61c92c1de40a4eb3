"""The page on the API, held to the code."""

import re
from pathlib import Path

from provider_core.dialects.openai.protocol import (
    ChatCompletionRequest,
    CompletionFields,
    CompletionRequest,
    GenerationFields,
)
from provider_core.dialects.openai.responses_api.protocol import ResponseRequest
from provider_core.dialects.openai.unsupported import CHAT_ONLY_FIELDS, UNSUPPORTED_FIELDS

PAGE = (Path(__file__).parents[3] / "docs" / "api.md").read_text()


def names_in(heading: str) -> set[str]:
    """Fields named in the first column of a section's table."""
    section = PAGE.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    rows = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    return set(re.findall(r"`(\w+)`", " ".join(rows)))


def test_every_field_is_on_the_page_and_nothing_else() -> None:
    """A field that is added, renamed or taken away changes the page, too."""
    shared = set(CompletionFields.model_fields)
    assert names_in("Both endpoints") == shared
    assert names_in("Chat only") == set(ChatCompletionRequest.model_fields) - shared
    assert names_in("Completions only") == set(CompletionRequest.model_fields) - shared
    own = set(ResponseRequest.model_fields) - set(GenerationFields.model_fields)
    assert names_in("Responses") == own
    assert names_in("Refused") == {*UNSUPPORTED_FIELDS, *CHAT_ONLY_FIELDS}
