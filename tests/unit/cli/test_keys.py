"""`provider keys`: the life of a key on the command line."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from provider_core.access import load_or_mint
from provider_core.cli import make_cli
from provider_core.errors import AuthenticationFailed, ConfigurationError


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Without a configuration file."""
    monkeypatch.chdir(tmp_path)
    return tmp_path / "data"


def run(folder: Path, *arguments: str, exit_code: int = 0) -> str:
    """What a command prints on stdout."""
    command, *rest = arguments
    result = CliRunner().invoke(make_cli(), ["keys", command, "--data-dir", str(folder), *rest])
    assert result.exit_code == exit_code, result.output
    return result.stdout if exit_code == 0 else result.stderr


def run_json(folder: Path, *arguments: str) -> Any:
    """The same, as JSON."""
    return json.loads(run(folder, *arguments, "--json"))


def authenticate(folder: Path, secret: str) -> Any:
    """Present a key as a server of this folder sees it."""
    store, _ = load_or_mint(folder, "a fixed key")
    try:
        return asyncio.run(store.authenticate(secret))
    finally:
        store.close()


def test_a_key_is_made_shown_and_revoked(folder: Path) -> None:
    """A server of the folder lets it in meanwhile."""
    made = run_json(
        folder, "create", "app", "--account", "acme", "--limit", "12.50", "--reset", "weekly"
    )
    principal = authenticate(folder, made["key"])
    assert (principal.label, principal.account_id) == ("app", "acme")
    assert str(principal.spend_limit.usd) == "12.50"
    shown = run_json(folder, "show", made["id"])
    assert shown == {name: value for name, value in made.items() if name != "key"}
    assert run_json(folder, "revoke", made["hash"])["state"] == "revoked"
    with pytest.raises(AuthenticationFailed, match="revoked"):
        authenticate(folder, made["key"])
    assert run_json(folder, "list") == []
    assert [key["id"] for key in run_json(folder, "list", "--revoked")] == [made["id"]]


def test_the_secret_alone_is_on_stdout(folder: Path) -> None:
    """So that it can be piped into a secrets manager."""
    secret = run(folder, "create", "app").strip()
    assert authenticate(folder, secret).label == "app"
    assert secret not in run(folder, "list")


def test_the_list_is_a_table(folder: Path) -> None:
    """For people."""
    run(folder, "create", "one", "--management")
    lines = run(folder, "list").splitlines()
    assert lines[0].split() == ["key", "label", "account", "scope", "limit", "created", "state"]
    assert lines[1].split()[1:3] == ["one", "management"]
    assert "live" in lines[1]


def test_rotation_keeps_both_secrets_for_a_while(folder: Path) -> None:
    """Or not at all, if there is no time for it."""
    made = run_json(folder, "create", "app")
    second = run_json(folder, "rotate", made["id"])
    assert second["id"] == made["id"]
    assert authenticate(folder, made["key"]) == authenticate(folder, second["key"]) is not None
    third = run_json(folder, "rotate", made["id"], "--overlap", "0")
    assert authenticate(folder, second["key"]) is None
    assert authenticate(folder, third["key"]) is not None


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--limit", "-1"),
        ("--limit", "much"),
        ("--limit", "NaN"),
        ("--reset", "hourly"),
        ("--models", ""),
        ("--models", " "),
        ("--models", "acme/a,,acme/b"),
        ("--expires", "soon"),
        ("--expires", "9999999d"),
        ("--expires", "9" * 400 + "d"),
        ("--expires", "\u00b2d"),
        ("--expires", "9999-12-31T23:59:59-10:00"),
    ],
)
def test_wrong_options_are_refused(folder: Path, option: str, value: str) -> None:
    """Before a key is made."""
    assert option in run(folder, "create", "app", option, value, exit_code=2)
    assert not folder.exists()


@pytest.mark.parametrize(
    ("text", "expected"),
    [("2099-01-01", "2099-01-01T00:00:00Z"), ("2099-01-01T02:00:00+02:00", "2099-01-01T00:00:00Z")],
)
def test_times_of_expiry_are_kept_in_utc(folder: Path, text: str, expected: str) -> None:
    """A time without a zone is one."""
    assert run_json(folder, "create", "app", "--expires", text)["expires_at"] == expected


def test_a_key_can_expire_after_days(folder: Path) -> None:
    """As schedules of rotation say."""
    made = run_json(folder, "create", "app", "--expires", "90d")
    assert made["created_at"] < made["expires_at"]


def test_ids_of_models_may_be_written_with_spaces(folder: Path) -> None:
    """As people write lists: each of them may be used."""
    made = run_json(folder, "create", "app", "--models", "acme/a, acme/b ")
    assert authenticate(folder, made["key"]).models == ("acme/a", "acme/b")


@pytest.mark.parametrize("hours", ["-1", "nan", "inf", "1e300"])
def test_an_overlap_that_has_no_end_is_refused(folder: Path, hours: str) -> None:
    """The old secret is to end some day, and nothing is made before that is known."""
    made = run_json(folder, "create", "app")
    assert "overlap" in run(folder, "rotate", made["id"], "--overlap", hours, exit_code=2)


def test_an_unknown_key_is_said_to_be(folder: Path) -> None:
    """Not a traceback."""
    assert "there is no key key_x" in run(folder, "show", "key_x", exit_code=2)


@pytest.mark.parametrize("below", ["", "below"])
def test_a_file_is_no_folder_of_keys(folder: Path, below: str) -> None:
    """An empty table would say that there are none."""
    folder.touch()
    result = CliRunner().invoke(make_cli(), ["keys", "list", "--data-dir", str(folder / below)])

    assert isinstance(result.exception, ConfigurationError)
    assert "Not a directory" in result.exception.message


def test_where_nothing_is_yet_there_are_no_keys(folder: Path) -> None:
    """Nor does asking make anything."""
    assert run_json(folder, "list") == []
    assert not folder.exists()
