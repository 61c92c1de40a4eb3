"""`/docs/models`: what a model's page says, to whom, and what it must never do."""

import asyncio
import html
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from provider_core.cli import make_cli
from provider_core.errors import ConfigurationError
from provider_core.server.model_pages import MEANINGS
from provider_core.testing import ScriptedEncoder
from tests.chat_templates import REASONING_TEMPLATE, make_templated_dir
from tests.serving import HERMES, KEY, Serving, make_model_dir, saying, serving

EVIL = "</code></pre><script src=https://evil.example/x.js></script>"
CARD = tomllib.loads("""
use_cases = ["Answering letters."]
strengths = ["It is quick."]
limitations = ["It must not give medical advice."]
prompting = ["Be brief."]
examples = [{ prompt = "Who's there & why?", answer = "<Me>" }]
recommendations = [{ purpose = "Facts", parameters = { temperature = 0 } }]
measurements = [{ name = "MMLU", value = "81.3", conditions = "5 shots" }]
""")


async def page_of(served: Serving, path: str = "/docs/models/test-model") -> str:
    """A page, as somebody without a key reads it."""
    async with served.session.get(served.url + path, headers={"Authorization": ""}) as response:
        assert response.status == 200
        assert response.content_type == "text/html"
        return await response.text()


def model(folder: Path, **fields: Any) -> tuple[dict[str, Any]]:
    """The `[[model]]` tables of a file with one model."""
    return ({"id": "test-model", "source": str(make_model_dir(folder / "model")), **fields},)


def price_headings(page: str) -> list[str]:
    """Of the table of prices."""
    table = page.partition('<h2 id="prices">')[2].partition("</table>")[0]
    return re.findall(r"<th>(.*?)</th>", table)


async def test_a_page_says_what_server_and_provider_know() -> None:
    """Lengths, exact prices per million, abilities, the card, parameters, code."""
    async with serving(saying("Hello!"), chat_template=HERMES) as served:
        page = await page_of(served)

    assert "2,048 tokens of input and output" in page
    assert "1 USD per million input tokens" in page
    assert "2 USD per million output tokens" in page
    assert '<li class="yes">Function calling</li>' in page
    assert '<li class="no">Images</li>' in page
    assert "openai/gpt-test" in page
    assert f"{served.url}/v1/chat/completions" in page
    assert "What it is for" not in page  # nobody said


async def test_the_card_is_on_the_page(tmp_path: Path) -> None:
    """Every word of `[model.card]`, as text."""
    async with serving(models=model(tmp_path, card=CARD)) as served:
        page = await page_of(served)

    for words in (
        *("Answering letters.", "It is quick.", "It must not give medical advice.", "Be brief."),
        *("&lt;Me&gt;", "MMLU", "81.3", "5 shots", "{&#34;temperature&#34;:0}"),
    ):
        assert words in page
    assert "Who&#39;s there &amp; why?" in page


async def test_a_page_loads_nothing_and_runs_nothing(tmp_path: Path) -> None:
    """No script, no picture, no style sheet; what a provider writes stays text."""
    models = model(tmp_path, description=EVIL, card={"use_cases": [EVIL]})
    async with serving(models=models) as served:
        url = served.url + "/docs/models/test-model"
        async with served.session.get(url) as response:
            policy = response.headers["Content-Security-Policy"]
            page = await response.text()

    assert policy.startswith("default-src 'none'")
    assert "<script" not in page
    assert re.findall(r"\bsrc=|<link|@import", page.replace("&lt;script src=", "")) == []


async def test_the_index_leads_to_every_page(tmp_path: Path) -> None:
    """By ids with slashes, too."""
    async with serving(models=model(tmp_path, id="acme/chat:v1")) as served:
        index = await page_of(served, "/docs/models")
        (path,) = re.findall(r'href="(/docs/models/[^"]+)"', index)
        page = await page_of(served, path)

    assert "<code>acme/chat:v1</code>" in page


async def test_an_unknown_model_has_no_page() -> None:
    """A 404, as everywhere."""
    async with serving() as served, served.session.get(f"{served.url}/docs/models/x") as response:
        assert response.status == 404


async def test_pages_are_private_with_the_list_of_models() -> None:
    """`access.private_models` closes them."""
    async with serving(access={"private_models": True}) as served:
        for path in ("/docs/models", "/docs/models/test-model"):
            strange = {"Authorization": ""}
            async with served.session.get(served.url + path, headers=strange) as response:
                assert response.status == 401
            async with served.session.get(served.url + path) as response:
                assert response.status == 200


async def test_prices_that_depend_are_told_apart(tmp_path: Path) -> None:
    """Each tier with its own line, the shortest prompts first; what is left over comes last."""
    tier = {"min_prompt_tokens": 1001, "prompt": "0.0000025"}
    async with serving(models=model(tmp_path, pricing={"tiers": [tier]})) as served:
        page = await page_of(served)
    window = {"utc_start": 2200, "utc_end": 600, "prompt": "0.0000005"}
    async with serving(models=model(tmp_path, pricing={"windows": [window]})) as served:
        by_time = await page_of(served)

    assert price_headings(page) == ["Up to 1,000 input tokens", "From 1,001 input tokens on"]
    assert "2.5 USD per million input tokens" in page
    assert price_headings(by_time) == ["22:00 to 06:00 UTC", "Otherwise"]


@pytest.mark.parametrize("client_grammars", [False, True])
async def test_grammars_are_promised_where_they_are_taken(*, client_grammars: bool) -> None:
    """By default clients send none."""
    async with serving(limits={"client_grammars": client_grammars}) as served:
        page = await page_of(served)

    assert ("a choice or a grammar" in page) == client_grammars
    assert ("a pattern or a choice." in page) != client_grammars


async def test_a_range_without_its_zero_says_so() -> None:
    """Both refuse 0, and take whatever lies above."""
    async with serving() as served:
        page = await page_of(served)

    for name, values in (("top_p", "above 0, to 1"), ("repetition_penalty", "above 0, to 2")):
        assert f"<code>{name}</code></td><td>{values}</td>" in page


async def test_the_program_for_anthropics_package_prints_what_was_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it stands on the page; a model that thinks sends its thoughts before its text."""
    source = make_templated_dir(tmp_path / "model", REASONING_TEMPLATE)
    monkeypatch.setenv("PROVIDER_API_KEY", KEY)
    printed: list[str] = []
    models = ({"id": "test-model", "source": str(source)},)
    async with serving(saying("Let me see.\n</think>\n\nyes"), models=models) as served:
        programs = re.findall(r"<pre><code>(.*?)</code></pre>", await page_of(served), re.DOTALL)
        (program,) = (html.unescape(each) for each in programs if "import Anthropic" in each)
        await asyncio.to_thread(exec, program, {"print": printed.append})

    assert printed == ["yes"]


async def test_every_parameter_is_explained() -> None:
    """A parameter that listings learn of needs words here."""
    async with serving(chat_template=HERMES) as served:
        page = await page_of(served)
    rows = re.findall(r"<tr><td><code>(\w+)</code></td>.*<td class=\"soft\">(.*)</td></tr>", page)

    assert {name for name, _ in rows} >= {"max_tokens", "tools", "reasoning", "top_logprobs"}
    assert [name for name, meaning in rows if not meaning] == []
    assert MEANINGS.keys() >= {name for name, _ in rows}


async def test_an_encoder_has_examples_of_its_own() -> None:
    """Vectors, and no conversation."""
    async with serving(lambda spec: ScriptedEncoder(max_model_len=spec.max_model_len)) as served:
        page = await page_of(served)

    assert "/v1/embeddings" in page
    assert "chat/completions" not in page


async def test_the_command_writes_the_page(tmp_path: Path) -> None:
    """`provider docs MODEL FILE`, from a server that runs; one line if there is none."""
    out = tmp_path / "card.html"
    async with serving() as served:
        arguments = ["docs", "test-model", str(out), "--url", served.url]
        result = await asyncio.to_thread(CliRunner().invoke, make_cli(), arguments)
        page = await page_of(served)
        arguments[1] = "nobody"
        refused = await asyncio.to_thread(CliRunner().invoke, make_cli(), arguments)

    assert result.exit_code == 0
    assert out.read_text(encoding="utf-8") == page
    assert refused.exit_code == 1
    assert "serves no model 'nobody'" in str(refused.exception)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["file/card.html"], "FILE is file/card.html, and there is no folder file"),
        (["."], "FILE is ., a folder; name a file"),
        (["card.html", "--key", "a\nb"], "--key holds characters that no API key has"),
    ],
)
def test_the_command_asks_for_nothing_that_it_cannot_use(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says so in a line; there is no server here that could be asked."""
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    command = ["docs", "starter", *arguments, "--url", "http://127.0.0.1:1"]
    result = CliRunner().invoke(make_cli(), command)

    assert isinstance(result.exception, ConfigurationError)
    assert result.exception.message == message
