"""Images: their files linted and read, and what they install compared with the extras."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "infra/docker"
IMAGES = sorted(FOLDER.glob("*.Dockerfile"))
OWN = re.compile(
    r'^#.*\n|((?:EXTRAS|image\.title|image\.description|start-period)=)(?:".*"|\S+)', re.MULTILINE
)
"""What may differ between images: words, what is installed, and how long a start may take."""
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_there_is_one_for_each_runtime() -> None:
    """TensorRT's libraries are not in the other's image."""
    assert [path.stem for path in IMAGES] == ["onnxruntime", "tensorrt"]


def test_they_are_one_but_for_what_they_install() -> None:
    """A mend of one is a mend of the other."""
    assert len({OWN.sub(r"\1", path.read_text(encoding="utf-8")) for path in IMAGES}) == 1


@pytest.mark.parametrize("path", IMAGES, ids=lambda path: path.stem)
def test_the_linter_finds_nothing(path: Path) -> None:
    """Of hadolint."""
    command = [str(Path(sys.executable).with_name("hadolint")), str(path)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (run.returncode, run.stdout) == (0, "")


@pytest.mark.parametrize("path", IMAGES, ids=lambda path: path.stem)
def test_it_serves_without_root_and_without_secrets(path: Path) -> None:
    """In exec form, so that signals reach the server; no torch, no model, no key."""
    text = path.read_text()
    last = text[text.rindex("\nFROM ") :]
    assert last.endswith('\nENTRYPOINT ["tini", "-s", "--", "provider"]\nCMD ["serve"]\n')
    assert re.search(r"^USER 10001$", last, re.MULTILINE)
    assert "HEALTHCHECK" in last
    assert "org.opencontainers.image.title" in last
    assert not re.search(r"key|secret|token|password", last.lower())
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", text, re.MULTILINE)
    allowed = (ROOT / ".dockerignore").read_text().splitlines()
    for source in " ".join(copied).split():
        assert (ROOT / source).exists()
        assert any(line.startswith("!") and Path(source).match(line[1:]) for line in allowed), (
            f"{source} is left out of the build"
        )


@pytest.mark.parametrize("extras", ["onnxruntime", "onnxruntime-gpu,aws", "dev"])
def test_requirements_are_those_of_the_extras(extras: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Extras that name others are resolved, and nothing is named twice."""
    monkeypatch.setenv("EXTRAS", extras)
    command = [sys.executable, str(FOLDER / "requirements.py")]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    lines = run.stdout.split("\n")[:-1]
    assert len(set(lines)) == len(lines)
    assert set(PROJECT["dependencies"]) <= set(lines)
    assert not any(line.startswith("provider-core") for line in lines)
    for extra in extras.split(","):
        named = PROJECT["optional-dependencies"][extra]
        own = [each for each in named if not each.startswith("provider-core")]
        assert set(own) <= set(lines)


def test_compose_serves_on_loopback_with_a_key() -> None:
    """From the image's own file, with a volume for bills."""
    (service,) = yaml.safe_load((ROOT / "infra/compose.yaml").read_text())["services"].values()
    context = ROOT / "infra" / service["build"]["context"]
    assert (context / service["build"]["dockerfile"]).resolve() in IMAGES
    assert service["ports"] == ["127.0.0.1:8000:8000"]
    assert service["environment"]["PROVIDER_API_KEY"].startswith("${PROVIDER_API_KEY:?")
    assert service["volumes"] == ["data:/data"]
