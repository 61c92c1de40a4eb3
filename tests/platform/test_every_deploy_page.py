"""What every page of docs/deploy promises, whatever its platform."""

import re
import tomllib
from importlib.metadata import entry_points

import pytest
from botocore import xform_name
from botocore.session import Session

from provider_core.platforms import GROUP
from tests.architecture.source_files import ROOT

FOLDER = ROOT / "docs/deploy"
PAGES = sorted(page.name for page in FOLDER.glob("*.md") if page.name != "README.md")
CONFIGURATION = (ROOT / "docs/configuration.md").read_text(encoding="utf-8")
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
MOST_COMMANDS = 10
AWS_OWN = {("ecr", "get-login-password"), ("s3", "sync")}  # of the command line, not of the API
AWS_OPTIONS = {"cli-input-json", "query", "output"}


def read(page: str) -> str:
    """A page, continued lines joined."""
    return (FOLDER / page).read_text(encoding="utf-8").replace("\\\n", " ")


def commands(page: str) -> list[str]:
    """What its reader types, from nothing to an answer."""
    first = re.search(r"^```(?:sh|bash)\n(.*?)^```", read(page), re.MULTILINE | re.DOTALL)
    assert first is not None
    lines: list[str] = []
    for line in first[1].splitlines():
        if lines and lines[-1].count("'") % 2:  # a quoted argument goes on
            lines[-1] += f"\n{line}"
        else:
            lines.append(line)
    return lines


@pytest.mark.parametrize("page", PAGES)
def test_ten_commands_lead_to_a_streamed_answer(page: str) -> None:
    """The last one asks for it; a script that asks is shown."""
    typed = commands(page)
    assert len(typed) <= MOST_COMMANDS
    script = re.fullmatch(r"python (\w+\.py)", typed[-1])
    asks = typed[-1] if script is None else read(page).partition(f"`{script[1]}`:")[2]
    assert re.search(r'"stream": [tT]rue', asks)


@pytest.mark.parametrize("page", PAGES)
def test_the_model_that_is_asked_for_is_served(page: str) -> None:
    """The built-in one, unless a listing or a command names another."""
    listings = "".join(re.findall(r"^```.*?^```", read(page), re.MULTILINE | re.DOTALL))
    is_another = "PROVIDER_MODEL" in listings or "aws s3 sync MODEL" in listings
    assert ('"model": "starter"' in listings) is not is_another


@pytest.mark.parametrize("page", PAGES)
def test_variables_of_the_shell_are_told_of(page: str) -> None:
    """A reader sets each before it is used, or reads what it is."""
    prose = re.sub(r"^```.*?^```", "", read(page), flags=re.MULTILINE | re.DOTALL)
    known = set(re.findall(r"`([A-Z_]+)`", prose))
    for line in commands(page):
        used = re.findall(r"\$\{?([A-Z][A-Z_]*)", line)
        assert [name for name in used if name not in known] == []
        known |= set(re.findall(r"\b([A-Z][A-Z_]*)=", line))


@pytest.mark.parametrize("page", PAGES)
def test_what_nobody_could_check_is_said(page: str) -> None:
    """In one sentence, once."""
    assert len(re.findall(r"^Not checked here[:,] ", read(page), re.MULTILINE)) == 1


@pytest.mark.parametrize("page", PAGES)
def test_variables_and_files_exist(page: str) -> None:
    """A variable is a setting, a path one of this repository, or a file that the page shows."""
    variables = set(re.findall(r"\bPROVIDER_[A-Z_]+[A-Z]\b", read(page)))
    assert [each for each in variables if f"`{each}`" not in CONFIGURATION] == []
    paths = re.findall(r"\b(?:infra|handlers|plugins|docs)/[\w./-]*\w", read(page))
    assert [path for path in paths if not (ROOT / path).exists()] == []
    typed = "\n".join(commands(page))
    used = set(
        re.findall(
            r"(?:file://|\bpython |--yaml | )([\w-]+\.(?:json|py|ya?ml|toml|Dockerfile))\b", typed
        )
    )
    made = set(re.findall(r"> ([\w-]+\.\w+)", typed))
    assert {name for name in used - made if f"`{name}`:" not in read(page)} == set()


@pytest.mark.parametrize("page", PAGES)
def test_platforms_and_extras_exist(page: str) -> None:
    """Whatever is named is in the package."""
    platforms = {entry_point.name for entry_point in entry_points(group=GROUP)}
    named = re.findall(r"(?:--platform |PROVIDER_PLATFORM=)([a-z][\w-]*)", read(page))
    assert set(named) <= platforms | {"ray"}
    asked = re.findall(r"(?:provider-core\[|EXTRAS=)([\w,-]+)", read(page))
    assert {extra for each in asked for extra in each.split(",")} <= set(EXTRAS)


@pytest.mark.parametrize("name", ["lambda", "lambda-adapter"])
def test_the_image_writes_where_its_platform_can_be_written(name: str) -> None:
    """The image names its volume, and whoever has none there must say otherwise."""
    (profile,) = ROOT.glob(f"handlers/*/{name}.toml")
    folder = tomllib.loads(profile.read_text())["settings"]["data_dir"]
    assert re.search(rf'PROVIDER_DATA_DIR("?: "|=){folder}\b', read(f"{name}.md"))


@pytest.mark.parametrize("page", [page for page in PAGES if "\naws " in read(page)])
def test_aws_has_these_operations_and_options(page: str) -> None:
    """By AWS's own description of its API, of which its command line is made."""
    session = Session()
    for service, operation, rest in re.findall(
        r"\baws ([a-z0-9]+) ([a-z0-9-]+)([^|&)\n]*)", "\n".join(commands(page))
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
