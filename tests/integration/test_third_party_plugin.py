"""A backend from a distribution of its own: installed by pip, found by its entry point, served."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest

from tests.serving import make_model_dir

ROOT = Path(__file__).parents[2]
PROVIDER = [sys.executable, "-c", "from provider_core.cli import main; main()"]
KEY = "sk-third-party"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the example backend, installed as a user would install it."""
    folder = tmp_path_factory.mktemp("site")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", "install"]
    offline = ["--no-deps", "--no-build-isolation", "--no-index"]
    backend = str(ROOT / "tests/example_backend")
    subprocess.run([*pip, *offline, "--target", str(folder), backend], check=True)
    return folder


@pytest.fixture
def environment(site: Path) -> dict[str, str]:
    """Of a process that finds the core here and the example where it was installed."""
    return {
        "PYTHONPATH": f"{site}:{ROOT}:{ROOT / 'plugins'}",
        "PROVIDER_PLUGINS": "example",
        "PROVIDER_API_KEY": KEY,
    }


@pytest.fixture
def url(environment: dict[str, str], tmp_path: Path) -> Iterator[str]:
    """Where a server with a model on the example backend is ready."""
    model = make_model_dir(tmp_path / "copycat", max_model_len=256)
    options = ["--model", str(model), "--backend", "example", "--port", "0"]
    with subprocess.Popen(
        [*PROVIDER, "serve", *options, "--data-dir", str(tmp_path / "data")],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stderr is not None
            lines = (json.loads(line) for line in process.stdout)
            assert any(line["event"] == "server.ready" for line in lines)
            said = (re.search(r"http://127\.0\.0\.1:\d+", line) for line in process.stderr)
            yield next(address[0] for address in said if address is not None)
        finally:
            process.terminate()
            process.communicate()
    assert process.returncode == 0


def ask(url: str, path: str, body: dict[str, Any] | None = None) -> Any:
    """One request with the key; the JSON of its answer."""
    headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
    data = json.dumps(body).encode() if body is not None else None
    with urlopen(Request(url + path, data, headers), timeout=30) as response:  # noqa: S310 - ours
        return json.load(response)


def test_the_installed_plugin_is_listed(environment: dict[str, str], tmp_path: Path) -> None:
    """`provider plugins` says from which package and file it came, and what it does."""
    listed = subprocess.run(
        [*PROVIDER, "plugins", "--json"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        check=True,
    )

    example = json.loads(listed.stdout)[0]
    site = environment["PYTHONPATH"].partition(":")[0]
    assert example == {
        "name": "example",
        "distribution": "provider-example",
        "version": "1.0",
        "path": f"{site}/provider_example.py",
        "hooks": ["load_model"],
    }


def test_it_serves(url: str) -> None:
    """The core does the rest: HTTP, tokens, batches, sampling, usage."""
    body = {"model": "copycat", "prompt": "abc abc", "max_tokens": 8, "temperature": 0}

    answer = ask(url, "/v1/completions", body)

    assert [choice["text"] for choice in answer["choices"]] == [" abc abc"]
    assert answer["usage"]["completion_tokens"] == 8
    assert [model["id"] for model in ask(url, "/v1/models")["data"]] == ["copycat"]


def test_the_terminal_talks_to_it(url: str, environment: dict[str, str], tmp_path: Path) -> None:
    """`provider chat` finds the model and prints its answer."""
    said = subprocess.run(
        [*PROVIDER, "chat", "--url", url],
        cwd=tmp_path,
        env=environment,
        input=b"hello\n",
        capture_output=True,
        check=False,
    )

    assert (said.returncode, said.stderr) == (0, b"")
    assert said.stdout.strip()
