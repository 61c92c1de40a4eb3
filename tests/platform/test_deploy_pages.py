"""docs/deploy: what its pages promise, as far as it can be tried without an account."""

import ast
import json
import re
import shlex
import subprocess
import tomllib
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest
import yaml
from botocore import xform_name
from botocore.session import Session

from provider_core.platforms import GROUP
from provider_core.server.health import BUILT_IN
from provider_core.settings import load_settings
from tests.architecture.source_files import ROOT
from tests.platform.documents import LISTINGS, PAGES, commands_of, listings_of, read
from tests.serving import KEY, saying, serving
from tests.sse_checker import check_stream

HANDLERS = {entry_point.name: entry_point.value for entry_point in entry_points(group=GROUP)}
HTTP = sorted(name for name, handler in HANDLERS.items() if handler == "provider_http")
AWS = [page for page in PAGES if re.search(r"^aws ", read(page), re.MULTILINE)]
OVERVIEW = read("README")
CONFIGURATION = (ROOT / "docs/configuration.md").read_text(encoding="utf-8")
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
MOST_COMMANDS = 10
AWS_OWN = {("ecr", "get-login-password"), ("s3", "sync")}  # of the command line, not of the API
AWS_OPTIONS = {"cli-input-json", "query", "output"}

every_page = pytest.mark.parametrize("page", PAGES)
every_http_platform = pytest.mark.parametrize("name", HTTP)


@every_page
def test_ten_commands_lead_to_a_streamed_answer(page: str) -> None:
    """The last one asks for it; a script that asks is shown."""
    typed = commands_of(page)
    assert len(typed) <= MOST_COMMANDS
    script = re.fullmatch(r"python (\w+\.py)", typed[-1])
    asks = typed[-1] if script is None else read(page).partition(f"`{script[1]}`:")[2]
    assert re.search(r'"stream": [tT]rue', asks)


@every_page
def test_commands_are_shell(page: str) -> None:
    """A shell reads every line."""
    for line in commands_of(page):
        subprocess.run(["bash", "-n", "-c", line], check=True)
        shlex.split(line)


@every_page
def test_listings_are_what_they_say(page: str) -> None:
    """They can be read."""
    for text in listings_of(page, "json"):
        json.loads(text)
    for text in listings_of(page, "toml"):
        tomllib.loads(text)
    for text in listings_of(page, "yaml"):
        assert all(yaml.safe_load_all(text))
    for text in listings_of(page, "python"):
        ast.parse(text)


@every_page
def test_the_model_that_is_asked_for_is_served(page: str) -> None:
    """The built-in one, unless a listing or a command names another."""
    listings = "".join(text for _, text in LISTINGS.findall(read(page)))
    is_another = "PROVIDER_MODEL" in listings or "aws s3 sync MODEL" in listings
    assert ('"model": "starter"' in listings) is not is_another


@every_page
def test_variables_of_the_shell_are_told_of(page: str) -> None:
    """A reader sets each before it is used, or reads what it is."""
    prose = LISTINGS.sub("", read(page))
    known = set(re.findall(r"`([A-Z_]+)`", prose))
    for line in commands_of(page):
        used = re.findall(r"\$\{?([A-Z][A-Z_]*)", line)
        assert [name for name in used if name not in known] == []
        known |= set(re.findall(r"\b([A-Z][A-Z_]*)=", line))


@every_page
def test_what_nobody_could_check_is_said(page: str) -> None:
    """In one sentence, once."""
    assert len(re.findall(r"^Not checked here[:,] ", read(page), re.MULTILINE)) == 1


@every_page
def test_variables_and_files_exist(page: str) -> None:
    """A variable is a setting, a path one of this repository, or a file that the page shows."""
    variables = set(re.findall(r"\bPROVIDER_[A-Z_]+[A-Z]\b", read(page)))
    assert [each for each in variables if f"`{each}`" not in CONFIGURATION] == []
    paths = re.findall(r"\b(?:infra|handlers|plugins|docs)/[\w./-]*\w", read(page))
    assert [path for path in paths if not (ROOT / path).exists()] == []
    typed = "\n".join(commands_of(page))
    used = set(
        re.findall(
            r"(?:file://|\bpython |--yaml | )([\w-]+\.(?:json|py|ya?ml|toml|Dockerfile))\b", typed
        )
    )
    made = set(re.findall(r"> ([\w-]+\.\w+)", typed))
    assert {name for name in used - made if f"`{name}`:" not in read(page)} == set()


@every_page
def test_platforms_and_extras_exist(page: str) -> None:
    """Whatever is named is in the package."""
    named = re.findall(r"(?:--platform |PROVIDER_PLATFORM=)([a-z][\w-]*)", read(page))
    assert set(named) <= HANDLERS.keys() | {"ray"}
    asked = re.findall(r"(?:provider-core\[|EXTRAS=)([\w,-]+)", read(page))
    assert {extra for each in asked for extra in each.split(",")} <= set(EXTRAS)


@pytest.mark.parametrize("name", ["lambda", "lambda-adapter"])
def test_the_image_writes_where_its_platform_can_be_written(name: str) -> None:
    """The image names its volume, and whoever has none there must say otherwise."""
    (profile,) = ROOT.glob(f"handlers/*/{name}.toml")
    folder = tomllib.loads(profile.read_text())["settings"]["data_dir"]
    assert re.search(rf'PROVIDER_DATA_DIR("?: "|=){folder}\b', read(name))


@pytest.mark.parametrize("page", AWS)
def test_aws_has_these_operations_and_options(page: str) -> None:
    """By AWS's own description of its API, of which its command line is made."""
    session = Session()
    for service, operation, rest in re.findall(
        r"\baws ([a-z0-9]+) ([a-z0-9-]+)([^|&)\n]*)", "\n".join(commands_of(page))
    ):
        if (service, operation) in AWS_OWN:
            continue
        if operation == "wait":
            waiters = session.create_client(service, region_name="eu-west-1").waiter_names
            assert rest.split()[0].replace("-", "_") in waiters
            continue
        model = session.get_service_model(service)
        operations = {xform_name(name, "-"): name for name in model.operation_names}
        members = model.operation_model(operations[operation]).input_shape.members
        options = {xform_name(name, "-") for name in members} | AWS_OPTIONS
        asked = re.findall(r"(?<=\s)--([a-z-]+)", re.sub(r"'[^']*'", "", rest))
        assert [name for name in asked if name.removeprefix("no-") not in options] == []


@every_http_platform
def test_every_platform_has_a_page(name: str) -> None:
    """To which the overview leads, and which has the server told where it is."""
    assert f"[`{name}`]({name}.md)" in OVERVIEW
    assert re.search(rf'(--platform|PROVIDER_PLATFORM\W+|"--platform",) ?"?{name}\b', read(name))


@every_http_platform
def test_the_overview_says_where_it_listens_and_how_long_it_has(name: str) -> None:
    """As the profile does."""
    profile = ROOT / f"handlers/provider_http/{name}.toml"
    settings = tomllib.loads(profile.read_text(encoding="utf-8"))["settings"]
    grace_s = settings["server"].get("grace_s", load_settings().server.grace_s)
    row = next(line for line in OVERVIEW.splitlines() if line.startswith(f"| [`{name}`]"))

    assert row.endswith(f"| `{settings['port']}` | {grace_s:g} s |")


@every_http_platform
def test_what_a_platform_asks_is_answered(name: str) -> None:
    """By one of the server's probes."""
    asked = re.findall(
        r"(?:path[:=] ?|_endpoint[:=] ?|http:)\"?(/[\w/]+z|/health|/ping)", read(name)
    )
    assert set(asked) <= set(BUILT_IN)


@every_http_platform
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
    named = re.findall(rf"(?:{'|'.join(before)})(\d+)", read(name), re.MULTILINE)
    assert {int(port) for port in named} <= {load_settings(platform=name).port}


async def test_the_last_command_is_answered_by_a_stream() -> None:
    """It is the same on every page, and works against a server."""
    (command,) = {commands_of(name)[-1] for name in HTTP}
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
