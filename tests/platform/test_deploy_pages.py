"""docs/deploy: as far as the pages can be tried without an account."""

import ast
import re
import shlex
import subprocess
import tomllib
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest
import yaml

from provider_core.platforms import GROUP
from provider_core.server.health import BUILT_IN
from provider_core.settings import load_settings
from tests.serving import KEY, saying, serving
from tests.sse_checker import check_stream

FOLDER = Path(__file__).parents[2] / "docs/deploy"
PLATFORMS = sorted(
    entry_point.name
    for entry_point in entry_points(group=GROUP)
    if entry_point.value == "provider_http"
)
OVERVIEW = (FOLDER / "README.md").read_text(encoding="utf-8")
CONFIGURATION = (FOLDER.parent / "configuration.md").read_text(encoding="utf-8")
MOST_COMMANDS = 10


def page(name: str) -> str:
    """A platform's page."""
    return (FOLDER / f"{name}.md").read_text(encoding="utf-8")


def blocks(name: str, language: str) -> list[str]:
    """The listings in one language."""
    return re.findall(rf"^```{language}\n(.*?)^```", page(name), re.DOTALL | re.MULTILINE)


def commands(name: str) -> list[str]:
    """What a reader types, a line each."""
    text = "".join(blocks(name, "sh")).replace("\\\n", " ")
    lines: list[str] = []
    for line in text.splitlines():
        if lines and lines[-1].count("'") % 2:  # a quoted argument goes on
            lines[-1] += f"\n{line}"
        else:
            lines.append(line)
    return lines


@pytest.mark.parametrize("name", PLATFORMS)
def test_every_platform_has_a_page(name: str) -> None:
    """With ten commands at most, and what nobody could try."""
    assert f"[`{name}`]({name}.md)" in OVERVIEW
    assert 0 < len(commands(name)) <= MOST_COMMANDS
    assert len(re.findall(r"^Not checked here: ", page(name), re.MULTILINE)) == 1
    assert re.search(rf'(--platform|PROVIDER_PLATFORM\W+|"--platform",) ?"?{name}\b', page(name))


@pytest.mark.parametrize("name", PLATFORMS)
def test_the_overview_says_where_it_listens_and_how_long_it_has(name: str) -> None:
    """As the profile does."""
    profile = FOLDER.parents[1] / "handlers/provider_http" / f"{name}.toml"
    settings = tomllib.loads(profile.read_text(encoding="utf-8"))["settings"]
    grace_s = settings["server"].get("grace_s", load_settings().server.grace_s)
    row = next(line for line in OVERVIEW.splitlines() if line.startswith(f"| [`{name}`]"))

    assert row.endswith(f"| `{settings['port']}` | {grace_s:g} s |")


@pytest.mark.parametrize("name", PLATFORMS)
def test_commands_are_shell(name: str) -> None:
    """A shell reads every line."""
    for line in commands(name):
        subprocess.run(["bash", "-n", "-c", line], check=True)
        shlex.split(line)


@pytest.mark.parametrize("name", PLATFORMS)
def test_listings_are_what_they_say(name: str) -> None:
    """TOML, YAML and Python can be read."""
    for text in blocks(name, "toml"):
        tomllib.loads(text)
    for text in blocks(name, "yaml"):
        assert all(yaml.safe_load_all(text))
    for text in blocks(name, "python"):
        ast.parse(text)


@pytest.mark.parametrize("name", PLATFORMS)
def test_settings_and_paths_exist(name: str) -> None:
    """What a page sets is a setting, and what it has a platform ask is answered."""
    variables = set(re.findall(r"PROVIDER_[A-Z_]+", page(name)))
    assert [each for each in variables if f"`{each}`" not in CONFIGURATION] == []
    asked = re.findall(
        r"(?:path[:=] ?|_endpoint[:=] ?|http:)\"?(/[\w/]+z|/health|/ping)", page(name)
    )
    assert set(asked) <= set(BUILT_IN)


@pytest.mark.parametrize("name", PLATFORMS)
def test_the_port_is_the_profiles(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever a page names the container's port."""
    monkeypatch.chdir(tmp_path)
    before = (
        "internal_port = ",
        "containerPort: ",
        "--target-port ",
        "exposed_port=",
        "server_port: ",
        r"web_server\(",
        "^port = ",
        '"port": ',
        r"ports=\[",
        "--ports ",
    )
    named = re.findall(rf"(?:{'|'.join(before)})(\d+)", page(name), re.MULTILINE)
    assert {int(port) for port in named} <= {load_settings(platform=name).port}


async def test_the_last_command_is_answered_by_a_stream() -> None:
    """It is the same on every page, and works against a server."""
    (command,) = {commands(name)[-1] for name in PLATFORMS}
    async with serving(saying("Hello!"), aliases=("starter",)) as served:
        url, headers, body = _curl(command, {"URL": served.url, "PROVIDER_API_KEY": KEY})
        async with served.session.post(url, data=body, headers=headers) as reply:
            assert reply.status == 200
            stream = check_stream(await reply.read())
    assert stream.texts == {0: "Hello!"}


def _curl(command: str, variables: dict[str, str]) -> tuple[str, dict[str, str], str]:
    """What `curl -N URL -H HEADER... -d BODY` sends."""
    for variable, value in variables.items():
        command = command.replace(f"${variable}", value)
    words = shlex.split(command)
    assert words[:2] == ["curl", "-N"]
    options: dict[str, list[str]] = {"-H": [], "-d": []}
    for option, value in zip(words[3::2], words[4::2], strict=True):
        options[option].append(value)
    headers: dict[str, Any] = dict(each.split(": ", 1) for each in options["-H"])
    return words[2], headers, options["-d"][0]
