"""`provider check`: what it says when it cannot run, and when it can."""

from pathlib import Path
from unittest.mock import patch

import pytest
from typer.testing import CliRunner

from provider_core.cli import make_cli
from provider_core.cli.check_session import facts_of
from provider_core.conformance.check import Check
from provider_core.conformance.endpoint import make_endpoint
from provider_core.conformance.probe import Probe
from provider_core.conformance.runner import Report, Result
from provider_core.conformance.subject import Subject
from provider_core.conformance.verdict import Status
from provider_core.errors import ConfigurationError
from provider_core.settings import load_settings

NOBODY = "http://127.0.0.1:9"  # the discard port, where nobody listens


async def _run(_probe: Probe) -> str:
    raise AssertionError  # results are made here


def result(status: Status) -> Result:
    """Of a check with a name that looks like markup."""
    check = Check(id="chat.whole", group="chat", title="A [bold] answer", run=_run)
    return Result(check=check, status=status, detail="no [x]", curl="curl -sN http://a.example")


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No configuration of this folder is read."""
    monkeypatch.chdir(tmp_path)


def test_nobody_answers() -> None:
    """One line on stderr, and a code of its own."""
    ran = CliRunner().invoke(make_cli(), ["check", NOBODY])

    assert ran.exit_code == 2
    assert f"provider: nobody answers at {NOBODY}/v1/models" in ran.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere"], "'nowhere' is not an http or https address"),
        ([NOBODY, "--only", "everything"], "--only is 'everything'; groups are models, chat"),
        ([NOBODY, "--markdown", "no/such/folder.md"], "no/such is no folder"),
        ([NOBODY, "--config", "missing.toml"], "cannot read the configuration file"),
    ],
)
def test_wrong_options_are_named(arguments: list[str], said: str) -> None:
    """Before anything is sent."""
    ran = CliRunner().invoke(make_cli(), ["check", *arguments])

    assert isinstance(ran.exception, ConfigurationError)
    assert said in ran.exception.message


@pytest.mark.parametrize(("status", "code"), [("pass", 0), ("warn", 0), ("fail", 1)])
def test_the_exit_code_says_whether_a_check_failed(status: Status, code: int) -> None:
    """What failed is shown with a command; brackets are no markup."""
    report = Report(make_endpoint(NOBODY), Subject(model="m"), "now", [result(status)])

    async def run_checks(*_: object, **options: object) -> Report:
        show = options["on_result"]
        assert callable(show)
        show(report.results[0])
        return report

    with patch("provider_core.cli.check_session.run_checks", run_checks):
        ran = CliRunner().invoke(make_cli(), ["check", NOBODY, "--json", "out.json"])

    assert ran.exit_code == code
    assert "A [bold] answer" in ran.output
    assert "no [x]" in ran.output
    assert ("curl -sN http://a.example" in ran.output) == (status == "fail")
    assert Path("out.json").exists()


def test_facts_are_what_the_file_says_and_no_defaults(tmp_path: Path) -> None:
    """Of the provider, and of the model by its id or an alias."""
    file = tmp_path / "provider.toml"
    file.write_text(
        '[provider]\nslug = "acme"\ncompany_email = "a@acme.example"\n'
        '[[model]]\nid = "a"\nsource = "x"\naliases = ["b"]\n[model.capacity]\n'
        "requests_per_day = 5\n"
    )
    facts = facts_of(load_settings(config=file), "b")

    assert facts.provider == {"slug": "acme", "company_email": "a@acme.example"}
    assert facts.value("model.capacity.requests_per_day") == 5
    assert facts.value("provider.name") is None
    assert facts_of(load_settings(config=file), "c").model == {}
