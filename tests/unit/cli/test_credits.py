"""`provider credits`: crediting accounts on the command line."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from provider_core.cli import make_cli


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Without a configuration file."""
    monkeypatch.chdir(tmp_path)
    return tmp_path / "data"


def run(folder: Path, *arguments: str, exit_code: int = 0) -> str:
    """What a command prints."""
    command, *rest = arguments
    options = ["credits", command, "--data-dir", str(folder), *rest]
    result = CliRunner().invoke(make_cli(), options)
    assert result.exit_code == exit_code, result.output
    return result.stdout if exit_code == 0 else result.stderr


def run_json(folder: Path, *arguments: str) -> Any:
    """The same, as JSON."""
    return json.loads(run(folder, arguments[0], "--json", *arguments[1:]))


def test_credits_add_up_exactly(folder: Path) -> None:
    """Every one is a movement."""
    run(folder, "add", "acme", "0.1", "--note", "first")
    balance = run_json(folder, "add", "acme", "0.2")
    assert balance == {
        "account": "acme",
        "bought": "0.3",
        "used": "0",
        "reserved": "0",
        "available": "0.3",
    }
    assert run_json(folder, "show", "acme") == balance
    movements = run_json(folder, "list", "acme")
    assert sorted((movement["usd"], movement["note"]) for movement in movements) == [
        ("0.1", "first"),
        ("0.2", ""),
    ]


def test_a_payment_is_credited_once(folder: Path) -> None:
    """By its own id, so that a script may be run again; and not another one under that id."""
    for _ in range(2):
        balance = run_json(folder, "add", "acme", "5", "--id", "payment-7")
    assert balance["bought"] == "5"
    run(folder, "add", "acme", "6", "--id", "payment-7", exit_code=1)
    run(folder, "add", "other", "5", "--id", "payment-7", exit_code=1)
    assert run_json(folder, "show", "acme")["bought"] == "5"


def test_credit_can_be_taken_back(folder: Path) -> None:
    """A negative amount follows `--`."""
    run(folder, "add", "acme", "5")
    assert run_json(folder, "add", "--", "acme", "-2")["bought"] == "3"


@pytest.mark.parametrize("amount", ["much", "NaN", "Infinity", "1e12", "0.0000000000000000001"])
def test_wrong_amounts_are_refused(folder: Path, amount: str) -> None:
    """Before anything is written."""
    run(folder, "add", "acme", amount, exit_code=2)
    assert not folder.exists()


def test_tables_are_for_people(folder: Path) -> None:
    """With the same columns."""
    lines = run(folder, "add", "acme", "5").splitlines()
    assert [line.split() for line in lines] == [
        ["account", "bought", "used", "reserved", "available"],
        ["acme", "5", "0", "0", "5"],
    ]
    assert run(folder, "list", "acme").splitlines()[1].split()[1:] == ["credit", "5"]


def test_an_account_without_credits_pays_later(folder: Path) -> None:
    """It is said so."""
    assert "it pays later" in run(folder, "show", "acme", exit_code=2)
