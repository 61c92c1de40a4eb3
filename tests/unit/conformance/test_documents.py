"""Answers, and the documents that are written of them."""

import json

from provider_core.conformance.answers import Answers
from provider_core.conformance.check import Check
from provider_core.conformance.checklist import NAMES, Line, load_checklist
from provider_core.conformance.documents import to_json, to_markdown
from provider_core.conformance.endpoint import make_endpoint
from provider_core.conformance.facts import Facts
from provider_core.conformance.probe import Probe
from provider_core.conformance.runner import Report, Result
from provider_core.conformance.subject import Subject
from provider_core.conformance.verdict import Status

FACTS = Facts(
    provider={"name": "Acme", "charges_cancelled": True, "countries": ["DE"], "monitoring": ""},
    model={"capacity": {"requests_per_day": 5}},
    source="provider.toml",
)


async def _run(_probe: Probe) -> str:
    raise AssertionError  # nothing runs here


def result(check_id: str, status: Status, detail: str) -> Result:
    """A result that a run may have."""
    group = check_id.partition(".")[0]
    check = Check(id=check_id, group=group, title=f"The {check_id}", run=_run)
    return Result(check=check, status=status, detail=detail, curl="curl -sN http://a.example")


def made_report() -> Report:
    """Of a provider with two checks."""
    listed = {"id": "m", "pricing": {"prompt": "0.0000005"}, "context_length": 4096}
    report = Report(make_endpoint("http://a.example"), Subject(model="m", listed=listed), "now")
    report.results += [
        result("chat.whole", "pass", "5 tokens"),
        result("chat.stream", "fail", "no | end"),
    ]
    return report


def answer_of(answer: str) -> tuple[str, str, str]:
    """What is answered to a line."""
    found = Answers(made_report(), FACTS).answer(Line("?", answer))
    return found.source, found.status, found.text


def test_checks_answer_with_the_worst_of_them() -> None:
    """And say what was found; a check that did not run says so."""
    assert answer_of("check chat.whole") == ("measured", "pass", "5 tokens")
    assert answer_of("check chat.whole chat.stream") == ("measured", "fail", "no | end")
    assert answer_of("check chat.*") == ("measured", "fail", "no | end")
    assert answer_of("check load.alone")[1:] == ("not_applicable", "not run: load.alone")


def test_facts_answer_or_say_which_key_to_set() -> None:
    """An empty value is none."""
    assert answer_of("fact provider.name") == ("stated", "pass", "Acme")
    assert answer_of("fact model.capacity.requests_per_day") == ("stated", "pass", "5")
    assert answer_of("fact provider.monitoring")[0] == "missing"
    assert (
        "set `capacity.requests_per_minute` in [[model]]"
        in (answer_of("fact model.capacity.requests_per_minute")[2])
    )
    assert answer_of("option provider.low_latency")[1] == "not_applicable"


def test_one_of_several_is_ticked() -> None:
    """The others say what is so instead."""
    assert answer_of("choice provider.charges_cancelled true")[:2] == ("stated", "pass")
    assert answer_of("choice provider.charges_cancelled false")[1] == "not_applicable"
    assert answer_of("choice provider.charges_failed true")[0] == "missing"
    assert answer_of("item provider.countries 1") == ("stated", "pass", "DE")
    assert answer_of("item provider.countries 2")[1] == "not_applicable"


def test_lists_answer() -> None:
    """Prices are shown per million tokens."""
    assert answer_of("price prompt")[2] == "0.5 USD per million tokens"
    assert answer_of("price input_cache_read")[1] == "not_applicable"
    assert answer_of("listed context_length")[2] == "4096"
    assert answer_of("listed name")[0] == "missing"
    assert answer_of("url /models")[2] == "http://a.example/v1/models"


def test_the_markdown_has_every_line_and_repeats_what_failed() -> None:
    """Each with an answer below it."""
    page = to_markdown(made_report(), FACTS)
    lines = page.splitlines()

    boxes = [number for number, line in enumerate(lines) if line.startswith("- [")]
    assert len(boxes) == sum(len(load_checklist(name).lines) for name in NAMES)
    assert all(lines[number + 1].startswith("  - ") for number in boxes)
    assert "- [x] Company name provided\n  - provider.toml: Acme" in page
    assert "  - **FAILED**, measured: no | end" in page
    assert "| The chat.stream (`chat.stream`) | **FAIL** | no \\| end |" in page
    assert "`chat.stream`, again:\n\n```\ncurl -sN http://a.example\n```" in page
    assert "___" not in page


def test_the_json_says_the_same() -> None:
    """For machines."""
    document = json.loads(to_json(made_report(), FACTS))

    assert (document["passed"], document["model"]) == (False, "m")
    assert [check["status"] for check in document["checks"]] == ["pass", "fail"]
    assert document["checklists"].keys() == set(NAMES)
    (name,) = [
        line
        for line in document["checklists"]["openrouter_integration"]
        if line["line"] == "Company name provided"
    ]
    assert name["answer"] == "Acme"
