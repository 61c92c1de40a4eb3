"""`provider plugins new` writes packages that install, pass their own tests and serve."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args
from urllib.request import Request, urlopen

import pytest

from provider_core.cli.new_plugin import Kind, write_plugin
from provider_core.errors import ConfigurationError
from tests.serving import make_model_dir

ROOT = Path(__file__).parents[2]
PROVIDER = [sys.executable, "-c", "from provider_core.cli import main; main()"]
KEY = "sk-new-plugins"
KINDS = get_args(Kind)
TOOLS = {"PATH": "/usr/bin:/bin"}


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a new package of each kind, named after it."""
    folder = tmp_path_factory.mktemp("packages")
    for kind in KINDS:
        ran = subprocess.run(
            [*PROVIDER, "plugins", "new", f"my-{kind}", "--kind", kind, "--in", str(folder)],
            cwd=folder,
            env={"PYTHONPATH": f"{ROOT}"},
            capture_output=True,
            text=True,
            check=True,
        )
        assert f"pip install -e '{folder}/provider-my-{kind}[test]'" in ran.stdout
    return folder


@pytest.fixture(scope="module")
def site(packages: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where pip has installed them."""
    folder = tmp_path_factory.mktemp("site")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", "install"]
    offline = ["--no-deps", "--no-build-isolation", "--no-index", "--target", str(folder)]
    subprocess.run([*pip, *offline, *map(str, sorted(packages.iterdir()))], check=True)
    return folder


@pytest.fixture(scope="module")
def environment(site: Path) -> dict[str, str]:
    """Of a process that finds the core here and the plugins where they were installed."""
    return {
        "PYTHONPATH": f"{site}:{ROOT}",
        "PROVIDER_PLUGINS": json.dumps([f"my-{kind}" for kind in KINDS]),
        "PROVIDER_API_KEY": KEY,
    }


@pytest.fixture(scope="module")
def url(environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where a server with a model of each kind is ready."""
    folder = tmp_path_factory.mktemp("server")
    source = make_model_dir(folder / "model", max_model_len=256)
    tables = [
        f'[[model]]\nid = "{kind}"\nsource = "{source}"\nbackend = "my-{kind}"' for kind in KINDS
    ]
    (folder / "provider.toml").write_text("\n".join(tables))
    with subprocess.Popen(
        [*PROVIDER, "serve", "--port", "0", "--data-dir", str(folder / "data")],
        cwd=folder,
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


def test_a_new_package_passes_its_own_tests(packages: Path, environment: dict[str, str]) -> None:
    """Every promise of a backend, as it was written."""
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "."],
        cwd=packages,
        env={**environment, **TOOLS},
        capture_output=True,
        text=True,
        check=False,
    )

    assert ran.returncode == 0, ran.stdout
    assert "passed" in ran.stdout


def test_installed_plugins_are_listed(environment: dict[str, str], tmp_path: Path) -> None:
    """With the package's version, and what they implement."""
    ran = subprocess.run(
        [*PROVIDER, "plugins", "list", "--json"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    listed = {info["name"]: info for info in json.loads(ran.stdout)}

    for kind in KINDS:
        info = listed[f"my-{kind}"]
        assert (info["distribution"], info["version"]) == (f"provider-my-{kind}", "0.1.0")
        assert info["hooks"] == ["load_model"]


def ask(url: str, body: dict[str, Any]) -> bytes:
    """One completion."""
    headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
    request = Request(f"{url}/v1/completions", json.dumps(body).encode(), headers)  # noqa: S310
    with urlopen(request, timeout=30) as response:  # noqa: S310 - our own server
        answer: bytes = response.read()
    return answer


@pytest.mark.parametrize("kind", KINDS)
def test_a_new_backend_serves(url: str, kind: str) -> None:
    """Whole and streamed, before a line of it was changed."""
    body = {"model": kind, "prompt": "abc abc", "max_tokens": 8, "temperature": 0}

    whole = json.loads(ask(url, body))
    streamed = ask(url, {**body, "stream": True})

    assert whole["choices"][0]["text"] == " abc abc"
    assert whole["usage"]["completion_tokens"] == 8
    chunks = [json.loads(event[6:]) for event in streamed.split(b"\n\n") if event[:7] == b"data: {"]
    text = "".join(choice["text"] for chunk in chunks for choice in chunk["choices"])
    assert text == " abc abc"


@pytest.mark.parametrize("kind", KINDS)
def test_a_new_package_is_clean(packages: Path, kind: str) -> None:
    """As our own code: formatted, and without a finding, wherever the tool is started."""
    for where, path in ((packages / f"provider-my-{kind}", "."), (packages, f"provider-my-{kind}")):
        for tool in (
            ["ruff", "format", "--check"],
            ["ruff", "check"],
            ["ruff", "check", "--select", "E,F,I,B,UP,ARG,ANN,RUF"],
        ):
            ran = subprocess.run(
                [sys.executable, "-m", *tool, path],
                cwd=where,
                capture_output=True,
                text=True,
                check=False,
            )
            assert ran.returncode == 0, ran.stdout


@pytest.mark.parametrize("name", ["", "My-Runtime", "my_runtime", "-x", "x-", "7up", "a b"])
def test_a_name_that_is_none_is_refused(name: str, tmp_path: Path) -> None:
    """It becomes a package, a module and an option."""
    with pytest.raises(ConfigurationError, match="lower-case words"):
        write_plugin(name, "backend", tmp_path)

    assert list(tmp_path.iterdir()) == []


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    """A second run changes no file."""
    folder = write_plugin("mine", "backend", tmp_path)
    (folder / "provider_mine.py").write_text("my work")

    with pytest.raises(ConfigurationError, match="exists already"):
        write_plugin("mine", "engine", tmp_path)
    assert (folder / "provider_mine.py").read_text() == "my work"


def test_a_name_that_is_taken_is_refused(tmp_path: Path) -> None:
    """One of two packages of a name would hide the other."""
    with pytest.raises(ConfigurationError, match="provider_onnxruntime is installed already"):
        write_plugin("onnxruntime", "backend", tmp_path)
