"""The programs on the built-in model's page run as they stand, against `provider serve` itself."""

import json
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from urllib.request import urlopen

import pytest

from tests.clients.installed import FOLDER, NODE, NODE_MARKS

KEY = "sk-key-of-the-examples"
SERVE = [sys.executable, "-c", "from provider_core.cli import main; main()", "serve"]
RUN_BY = {
    "curl": ["bash", "-c"],
    "python": [sys.executable, "-c"],
    "javascript": [NODE or "node", "--input-type=module", "-e"],
}
LIMIT_S = 60
_PROGRAM = re.compile(
    r'<summary>(?P<title>.*?) <span class="soft">\((?P<language>\w+)\)</span></summary>\n'
    r"<pre><code>(?P<code>.*?)</code></pre>",
    re.DOTALL,
)
_FIRST = re.compile(r'<h2 id="start">.*?<pre><code>(.*?)</code></pre>', re.DOTALL)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The page of the built-in model, from a process that serves it meanwhile."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    process = subprocess.Popen(
        [*SERVE, "--port", str(port)],
        cwd=tmp_path_factory.mktemp("server"),
        env={"PROVIDER_API_KEY": KEY, "PROVIDER_LOGGING__FORMAT": "json"},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        assert any('"server.ready"' in line for line in process.stdout)
        with urlopen(f"http://127.0.0.1:{port}/docs/models/starter") as response:
            yield response.read().decode()
    finally:
        process.terminate()
        process.communicate(timeout=LIMIT_S)


def programs(page: str, language: str) -> dict[str, str]:
    """The page's programs in one language, by their titles."""
    found = {
        match["title"]: unescape(match["code"])
        for match in _PROGRAM.finditer(page)
        if match["language"] == language
    }
    first = _FIRST.search(page)
    if language == "curl" and first is not None:
        found["Quick start"] = unescape(first[1])
    return found


def run(language: str, code: str, folder: Path) -> str:
    """What a program prints."""
    done = subprocess.run(
        [*RUN_BY[language], code],
        cwd=FOLDER / "node" if language == "javascript" else folder,  # where its packages are
        env={"PROVIDER_API_KEY": KEY, "PATH": "/usr/local/bin:/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.timeout(300)
@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_the_lines_for_curl_run(page: str, tmp_path: Path) -> None:
    """Whole, streamed, with a function, with a schema."""
    answers = {title: run("curl", code, tmp_path) for title, code in programs(page, "curl").items()}

    assert answers.keys() == {
        *("Quick start", "Ask, and see the answer grow", "Offer a function", "Ask for a document")
    }
    assert "Lima" in json.loads(answers["Quick start"])["choices"][0]["message"]["content"]
    assert answers["Ask, and see the answer grow"].endswith("data: [DONE]\n\n")
    assert json.loads(answers["Offer a function"])["choices"]
    document = json.loads(answers["Ask for a document"])["choices"][0]["message"]["content"]
    assert json.loads(document).keys() == {"answer"}


@pytest.mark.timeout(300)
def test_the_programs_in_python_run(page: str, tmp_path: Path) -> None:
    """With OpenAI's, Anthropic's and Google's packages."""
    found = programs(page, "python")

    assert len(found) == 4
    for title, code in found.items():
        assert "Lima" in run("python", code, tmp_path), title


@pytest.mark.timeout(300)
@pytest.mark.parametrize("language", [pytest.param("javascript", marks=NODE_MARKS)])
def test_the_program_in_javascript_runs(page: str, language: str, tmp_path: Path) -> None:
    """With OpenAI's package of npm."""
    (code,) = programs(page, language).values()

    assert "Lima" in run(language, code, tmp_path)
