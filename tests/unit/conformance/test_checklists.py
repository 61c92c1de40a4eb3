"""Every line of the questionnaires is there, in its words and order, and has an answer."""

from pathlib import Path

import pytest
from pydantic import BaseModel

from provider_core.conformance.answers import Answers
from provider_core.conformance.checklist import NAMES, load_checklist
from provider_core.conformance.checks import select_checks
from provider_core.conformance.endpoint import make_endpoint
from provider_core.conformance.facts import Facts
from provider_core.conformance.runner import Report
from provider_core.conformance.subject import Subject
from provider_core.model_settings import CapacitySettings, CardSettings, ModelSettings
from provider_core.settings import ProviderSettings

ROOT = Path(__file__).parents[3]
SEEDS = {
    "openrouter_integration": "integration_checklist.txt",
    "openrouter_listing": "listing_checklist.txt",
    "production_readiness": "readiness_checklist.txt",
}
EMPTY = Report(make_endpoint("http://a.example"), Subject(model="m"), "")
KEY_VERBS = {"fact", "option", "choice", "member", "item"}
LINES = [line for name in NAMES for line in load_checklist(name).lines]


@pytest.mark.parametrize("name", NAMES)
def test_every_box_of_the_questionnaire_is_a_line(name: str) -> None:
    """In the wording and order of the questionnaire; further lines are its open questions."""
    boxes = (ROOT / "tests" / "data" / SEEDS[name]).read_text(encoding="utf-8").splitlines()
    lines = iter([line.text for line in load_checklist(name).lines])

    assert boxes
    assert [box for box in boxes if box not in lines] == []  # consumes lines up to each box


def test_every_line_has_an_answer_that_is_not_blank() -> None:
    """Whatever is known, and if nothing is."""
    answers = Answers(EMPTY, Facts())

    assert [line for line in LINES if not answers.answer(line).text.strip()] == []


def test_every_check_that_a_line_names_exists() -> None:
    """And every check is there for some reason of its own."""
    known = {check.id for check in select_checks()}
    groups = {f"{check.group}.*" for check in select_checks()}
    named = {
        name
        for line in LINES
        if line.answer.startswith("check ")
        for name in line.answer.split()[1:]
    }

    assert named - known - groups == set()


def keys() -> set[str]:
    """The keys of provider.toml that lines ask for."""
    return {line.answer.split()[1] for line in LINES if line.answer.split()[0] in KEY_VERBS}


def test_every_key_that_a_line_names_can_be_set() -> None:
    """A field of the model's tables, or of the provider's, which takes further ones."""
    tables: dict[str, type[BaseModel]] = {
        "": ModelSettings,
        "capacity": CapacitySettings,
        "card": CardSettings,
    }
    known = {
        f"model.{table}.{name}".replace("..", ".")
        for table, settings in tables.items()
        for name in settings.model_fields
    }
    model_keys = {key for key in keys() if key.startswith("model.")}

    assert model_keys
    assert model_keys - known == set()
    assert ProviderSettings.model_config["extra"] == "allow"


def test_the_page_explains_every_key_of_the_provider() -> None:
    """Those that only checklists ask for are not on the page of the configuration."""
    page = (ROOT / "docs" / "check.md").read_text(encoding="utf-8")
    provider_keys = {key.removeprefix("provider.") for key in keys() if "provider." in key}
    further = provider_keys - set(ProviderSettings.model_fields)

    assert {key for key in further if f"| `{key}` |" not in page} == set()


def test_a_full_file_leaves_nothing_open() -> None:
    """With every key set, no line asks for one."""
    lists = {"countries": ["DE", "US", "FR"], "certifications": ["gdpr", "soc2", "hipaa"]}
    provider: dict[str, object] = dict.fromkeys(
        (key.removeprefix("provider.") for key in keys() if "provider." in key), "said"
    )
    model: dict[str, object] = {}
    for key in keys():
        table, *path = key.split(".")
        if table == "model":
            inner = {**_nested(model, path), path[-1]: "said"}
            model[path[0]] = inner if len(path) > 1 else "said"
    facts = Facts(provider=provider | lists, model=model)
    answers = Answers(EMPTY, facts)
    asking = [line for line in LINES if line.answer.split()[0] in KEY_VERBS]

    assert asking
    assert [line for line in asking if answers.answer(line).source == "missing"] == []


def _nested(model: dict[str, object], path: list[str]) -> dict[str, object]:
    """What a table of the model holds so far."""
    table = model.get(path[0])
    return table if isinstance(table, dict) else {}
