"""A model that sees passes the checks of images; the form says what it takes."""

from pathlib import Path

from provider_core.conformance.answers import Answers
from provider_core.conformance.checklist import load_checklist
from provider_core.conformance.checks import select_checks
from provider_core.conformance.endpoint import make_endpoint
from provider_core.conformance.facts import Facts
from provider_core.conformance.runner import run_checks
from tests.integration.test_images import seeing
from tests.serving import KEY


async def test_images_of_every_format_are_seen(tmp_path: Path) -> None:
    """Addresses are not fetched here, which the server says with a 400."""
    async with seeing(tmp_path, images={"fetch": False, "max_images": 3}) as (served, _):
        endpoint = make_endpoint(served.url, key=KEY)
        report = await run_checks(endpoint, select_checks(("images",)))
    found = {result.check.id: result.status for result in report.results}

    assert found.pop("images.url") == "not_applicable"
    assert set(found.values()) == {"pass"}, report.results
    answers = Answers(report, Facts())
    said = {
        line.text: answers.answer(line).text
        for line in load_checklist("openrouter_integration").lines
    }
    assert said["Maximum image size: `_____ MB`"] == "10485760 byte"
    assert said["Maximum images per request: `_____`"] == "3"
    assert said["`image/png` (PNG)"].startswith("seen, ")
    listing = load_checklist("openrouter_listing").lines
    (price,) = [line for line in listing if line.text == "Image input pricing (if applicable)"]
    assert answers.answer(price).text == "0.01 USD per image"
