"""Every listing of a guide for OpenRouter's clients runs here, with host and key changed.

The listings are kept as they stand in the guide, in order; a fragment uses what the ones before it
have made, as a reader's file would. Its model names are aliases of ours.
"""

import asyncio
import re
from collections.abc import AsyncIterator
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.serving import KEY, Serving, saying, serving

PAGE = Path(__file__).parents[2] / "data" / "guide_listings.txt"
LISTINGS = re.findall(
    r"^## (.*?)\n\n```python\n(.*?)^```", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL
)
ALIASES = (
    "anthropic/claude-3-haiku",
    "meta-llama/llama-3.1-8b-instruct",
    "openai/gpt-3.5-turbo",
    "openai/gpt-4",
    "mistralai/mixtral-8x7b-instruct",
)
BODIES = {  # listings that only make the body of a request, or its messages
    "2. Provider Routing",
    "3. Partial Response Completion",
    "4. Response Format Control",
    "Cost Optimization",
}


@pytest.fixture
async def served() -> AsyncIterator[Serving]:
    """A server that knows the guide's models under its own one."""
    async with serving(saying("{}"), aliases=ALIASES, max_model_len=4096) as running:
        yield running


def run_listings(base: str, folder: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """Run all of them in one namespace; fragments of requests are sent.

    Returns:
        The namespace at the end, and what each listing printed.
    """
    names: dict[str, Any] = {
        "__name__": "__main__",
        "OPENROUTER_API_KEY": KEY,
        "api_key": KEY,
        "desired_model": "test-model",
    }
    said: dict[str, str] = {}
    for title, code in LISTINGS:
        source = code.replace("https://openrouter.ai/api/v1", base)
        source = source.replace("your-api-key-here", KEY)
        if "# .env file" in source:  # two files in one listing
            env, _, source = source.partition("# Python code\n")
            (folder / ".env").write_text(env.replace("your-key-here", KEY))
            source = source.replace("load_dotenv()", f"load_dotenv({str(folder / '.env')!r})")
        printed = StringIO()
        names["print"] = partial(print, file=printed)
        exec(compile(source, title, "exec"), names)  # noqa: S102 - the guide's own code
        if title in BODIES:
            names["response"] = send_body(names, base, has_messages=code.startswith("messages"))
        elif "def stream_response" in code:
            names["stream_response"]("hi")
        elif "def retry_with_backoff" in code:
            names["retry_with_backoff"](lambda: send_body(names, base))
        elif "def make_request" in code:
            names["response"] = names["make_request"](names["url"], names["data"])
        said[f"{len(said)} {title}"] = printed.getvalue()
    return names, said


def send_body(names: dict[str, Any], base: str, *, has_messages: bool = False) -> requests.Response:
    """Send what a fragment has made."""
    body = names["data"] | ({"messages": names["messages"]} if has_messages else {})
    url = f"{base}/chat/completions"
    response = requests.post(url, headers=names["headers"], json=body, timeout=30)
    response.raise_for_status()
    return response


async def test_every_listing_runs(
    served: Serving, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """None raises, and those that print an answer print ours."""
    base = f"{served.url}/api/v1"
    monkeypatch.setenv("OPENROUTER_API_KEY", KEY)
    names, said = await asyncio.to_thread(run_listings, base, tmp_path)

    assert len(said) == len(LISTINGS) == 21
    printed = {title.partition(" ")[2]: text for title, text in said.items() if text}
    assert printed["Using OpenAI SDK (Recommended)"] == "{}\n"
    assert "'content': '{}'" in printed["Using Requests Library"]
    assert printed["1. Streaming Responses"] == "{}"
    assert "'total_cost'" in printed["5. Cost Tracking"]
    assert printed["Complete Example with Error Handling"] == "{}\n"
    assert printed["Async Implementation with aiohttp"] == "{}\n"
    assert "Invalid API key" not in "".join(printed.values())
    assert names["response"].status_code == 200


async def test_the_guides_troubleshooting_sees_a_wrong_key(served: Serving) -> None:
    """Its class says so and gives up."""
    response = await served.post(
        "/api/v1/chat/completions",
        {"model": "openai/gpt-4", "messages": [{"role": "user", "content": "hi"}]},
        headers={"Authorization": "Bearer wrong-key-of-nobody"},
    )
    assert response.status == 401
