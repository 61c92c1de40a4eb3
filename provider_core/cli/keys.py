"""`provider keys`: make, show, replace and revoke the keys of a data folder, also while it serves.

A running server lets a new key in at once, and refuses a revoked one within half a minute.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, TypeVar

import typer

if TYPE_CHECKING:  # imported by the commands themselves, so that help is quick
    from provider_core.access.api_key import ApiKey
    from provider_core.access.keys import KeyStore

_T = TypeVar("_T")
_MAX_OVERLAP_H = 10 * 366 * 24

app = typer.Typer(help="Make, show, replace and revoke API keys.", no_args_is_help=True)

Config = Annotated[str | None, typer.Option(help="Configuration file; default: ./provider.toml.")]
DataDir = Annotated[str | None, typer.Option(help="Folder of the keys.")]
AsJson = Annotated[bool, typer.Option("--json", help="JSON instead of a table.")]
KeyId = Annotated[str, typer.Argument(metavar="KEY_ID", help="`key_...`, or its hash.")]
Count = Annotated[int | None, typer.Option(min=1)]


@app.command()
def create(
    label: Annotated[str, typer.Argument(help="A name for people.")],
    *,
    account: Annotated[str | None, typer.Option(help="Whose it is.")] = None,
    management: Annotated[
        bool, typer.Option("--management", help="It manages keys, and runs no models.")
    ] = False,
    models: Annotated[str | None, typer.Option(help="Ids it may use, comma-separated.")] = None,
    limit: Annotated[str | None, typer.Option(help="USD it may spend.")] = None,
    reset: Annotated[
        str | None, typer.Option(help="When that starts anew: daily, weekly or monthly.")
    ] = None,
    expires: Annotated[
        str | None, typer.Option(help="When it ends: days, such as `90d`, or a time.")
    ] = None,
    requests_per_minute: Count = None,
    requests_per_day: Count = None,
    tokens_per_minute: Count = None,
    concurrent_requests: Count = None,
    config: Config = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Make a key; its secret is shown now and never again."""
    facts = {
        "label": label,
        "account_id": account,
        "scope": "management" if management else "inference",
        "models": _names(models),
        "spend_limit": _amount(limit),
        "spend_reset": _reset(reset),
        "expires_at": _time(expires),
        "requests_per_minute": requests_per_minute,
        "requests_per_day": requests_per_day,
        "tokens_per_minute": tokens_per_minute,
        "concurrent_requests": concurrent_requests,
    }

    async def job(store: KeyStore) -> tuple[ApiKey, str]:
        return await store.create(**facts)

    key, secret = _with_store(job, config, data_dir)
    _show_secret(key, secret, as_json=as_json)


@app.command("list")
def list_keys(
    *,
    account: Annotated[str | None, typer.Option(help="Only of this one.")] = None,
    revoked: Annotated[bool, typer.Option("--revoked", help="Those, too.")] = False,
    config: Config = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """List keys, the newest first."""

    async def job(store: KeyStore) -> list[ApiKey]:
        return await store.select(account)

    keys = [key for key in _with_store(job, config, data_dir) if revoked or not key.revoked_at]
    if as_json:
        _print_json([_facts(key) for key in keys])
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for column in ("key", "label", "account", "scope", "limit", "created", "state"):
        table.add_column(column, overflow="fold")
    for key in keys:
        limit = "" if key.spend_limit is None else f"{key.spend_limit} {key.spend_reset or ''}"
        created = key.created_at[:10]
        table.add_row(
            key.id, key.label, key.account_id or "", key.scope, limit, created, _state(key)
        )
    Console().print(table)


@app.command()
def show(
    key_id: KeyId, *, config: Config = None, data_dir: DataDir = None, as_json: AsJson = False
) -> None:
    """Show everything that is known of a key; its secret is not."""
    _show(_with_key(key_id, None, config, data_dir), as_json=as_json)


@app.command()
def rotate(
    key_id: KeyId,
    *,
    overlap: Annotated[float, typer.Option(min=0, help="Hours the old secret lives on.")] = 24,
    config: Config = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Give a key another secret, shown now and never again; the old one works on for a while."""
    if not overlap <= _MAX_OVERLAP_H:  # nor NaN
        _refuse(f"--overlap must be at most {_MAX_OVERLAP_H} hours")

    async def job(store: KeyStore) -> tuple[ApiKey, str]:
        key = await _find(store, key_id)
        return key, await store.rotate(key, overlap * 3600)

    key, secret = _with_store(job, config, data_dir)
    _show_secret(key, secret, as_json=as_json)


@app.command()
def revoke(
    key_id: KeyId, *, config: Config = None, data_dir: DataDir = None, as_json: AsJson = False
) -> None:
    """Refuse a key from now on, for good."""

    async def job(store: KeyStore, key: ApiKey) -> ApiKey:
        return await store.revoke(key)

    _show(_with_key(key_id, job, config, data_dir), as_json=as_json)


def _with_key(
    key_id: str,
    job: Callable[[KeyStore, ApiKey], Awaitable[ApiKey]] | None,
    config: str | None,
    data_dir: str | None,
) -> ApiKey:
    async def run(store: KeyStore) -> ApiKey:
        key = await _find(store, key_id)
        return key if job is None else await job(store, key)

    return _with_store(run, config, data_dir)


def _with_store(
    job: Callable[[KeyStore], Awaitable[_T]], config: str | None, data_dir: str | None
) -> _T:
    import asyncio
    from contextlib import suppress

    from provider_core.access.database import FILE_NAME
    from provider_core.errors import ConfigurationError
    from provider_core.plugins import make_plugin_manager
    from provider_core.server.open_keys import open_stored_keys
    from provider_core.settings import load_settings

    options = {"config": config, "data_dir": data_dir}
    settings = load_settings(**{name: value for name, value in options.items() if value})
    store = open_stored_keys(settings, make_plugin_manager(settings))

    async def run() -> _T:
        with suppress(FileNotFoundError):  # no keys yet; anything else is no folder of keys
            (settings.data_dir / FILE_NAME).stat()
        return await job(store)

    try:
        return asyncio.run(run())
    except OSError as error:
        raise ConfigurationError(
            f"cannot use the keys in {settings.data_dir}: {error.strerror}"
        ) from error
    finally:
        store.close()


async def _find(store: KeyStore, key_id: str) -> ApiKey:
    key = await store.find(key_id)
    if key is None:
        _refuse(f"there is no key {key_id}")
    return key


def _refuse(message: str) -> NoReturn:
    raise typer.BadParameter(message)


def _names(text: str | None) -> str | None:
    if text is None:
        return None
    names = [name.strip() for name in text.split(",")]
    if not all(names):
        _refuse("--models must be ids with a comma between them")
    return ",".join(names)


def _amount(text: str | None) -> str | None:
    from decimal import Decimal, InvalidOperation

    if text is None:
        return None
    try:
        amount = Decimal(text)
    except InvalidOperation:
        _refuse(f"--limit must be an amount of USD, not {text}")
    if not amount.is_finite() or amount < 0:
        _refuse("--limit must be at least 0")
    return format(amount, "f")


def _reset(text: str | None) -> str | None:
    if text not in {None, "daily", "weekly", "monthly"}:
        _refuse("--reset must be daily, weekly or monthly")
    return text


def _time(text: str | None) -> str | None:
    import time
    from datetime import UTC, datetime

    from provider_core.access.api_key import timestamp

    if text is None:
        return None
    days = text.removesuffix("d")
    try:
        if days != text and days.isdigit():
            return timestamp(time.time() + int(days) * 86400)
        ends = datetime.fromisoformat(text)
        return timestamp((ends if ends.tzinfo else ends.replace(tzinfo=UTC)).timestamp())
    except (ValueError, OverflowError):
        _refuse("--expires must be days, such as 90d, or a time of ISO 8601, at the latest in 9999")


def _facts(key: ApiKey) -> dict[str, Any]:
    from dataclasses import asdict

    return {**asdict(key), "hash": key.hash, "state": _state(key)}


def _state(key: ApiKey) -> str:
    import time

    from provider_core.access.api_key import timestamp

    refusal = key.refusal(timestamp(time.time()))
    return "live" if refusal is None else refusal.rpartition(" ")[2]


def _show_secret(key: ApiKey, secret: str, *, as_json: bool) -> None:
    if as_json:
        _print_json({**_facts(key), "key": secret})
        return
    typer.echo(f"{key.id}: the key is shown this once and stored nowhere:", err=True)
    typer.echo(secret)


def _show(key: ApiKey, *, as_json: bool) -> None:
    if as_json:
        _print_json(_facts(key))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, show_header=False)
    for name, value in _facts(key).items():
        if value is not None:
            table.add_row(name, str(value))
    Console().print(table)


def _print_json(value: object) -> None:
    import json

    typer.echo(json.dumps(value, indent=2))
