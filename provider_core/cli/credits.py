"""`provider credits`: what accounts have bought and used, also while a server charges them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

if TYPE_CHECKING:  # imported by the commands themselves, so that help is quick
    from decimal import Decimal

    from provider_core.stores import Balance, CreditLedger

_T = TypeVar("_T")

app = typer.Typer(help="Credit accounts, and show what they have.", no_args_is_help=True)

Account = Annotated[str, typer.Argument(help="The account that keys belong to.")]
Config = Annotated[str | None, typer.Option(help="Configuration file; default: ./provider.toml.")]
DataDir = Annotated[str | None, typer.Option(help="Folder of the credits.")]
AsJson = Annotated[bool, typer.Option("--json", help="JSON instead of a table.")]


@app.command()
def add(
    account: Account,
    usd: Annotated[str, typer.Argument(help="How much; a negative amount takes credit back.")],
    *,
    event_id: Annotated[
        str | None,
        typer.Option("--id", help="Of the payment: the same one is credited once."),
    ] = None,
    note: Annotated[str, typer.Option(help="For people.")] = "",
    config: Config = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Credit an account; from its first credit on it pays in advance."""
    from provider_core.billing.identifiers import make_ulid

    amount = _amount(usd)
    name = event_id or f"credit-{make_ulid()}"

    async def job(ledger: CreditLedger) -> Balance:
        return await ledger.add(account, amount, event_id=name, note=note)

    _show_balance(account, _with_ledger(job, config, data_dir), as_json=as_json)


@app.command()
def show(
    account: Account, *, config: Config = None, data_dir: DataDir = None, as_json: AsJson = False
) -> None:
    """Show what an account has bought, used and reserved."""

    async def job(ledger: CreditLedger) -> Balance | None:
        return await ledger.balance(account)

    balance = _with_ledger(job, config, data_dir)
    if balance is None:
        raise typer.BadParameter(f"{account} has no credits; it pays later")
    _show_balance(account, balance, as_json=as_json)


@app.command("list")
def list_movements(
    account: Account,
    *,
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 100,
    config: Config = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """List what has changed an account's balance, the newest first."""
    from provider_core.access.api_key import timestamp

    async def job(ledger: CreditLedger) -> list[dict[str, str]]:
        return [
            {
                "at": timestamp(movement.at_s),
                "kind": movement.kind,
                "usd": f"{movement.usd:f}",
                "key": movement.api_key_id or "",
                "note": movement.note or "",
                "event_id": movement.event_id,
            }
            for movement in await ledger.movements(account, limit)
        ]

    movements = _with_ledger(job, config, data_dir)
    if as_json:
        _print_json(movements)
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for column in ("at", "kind", "usd", "key", "note"):
        table.add_column(column, justify="right" if column == "usd" else "left", overflow="fold")
    for movement in movements:
        table.add_row(*(movement[column] for column in ("at", "kind", "usd", "key", "note")))
    Console().print(table)


def _with_ledger(
    job: Callable[[CreditLedger], Awaitable[_T]], config: str | None, data_dir: str | None
) -> _T:
    import asyncio

    from provider_core.errors import ConfigurationError, Unavailable
    from provider_core.plugins import make_plugin_manager
    from provider_core.server.stores import open_credit_ledger
    from provider_core.settings import load_settings

    options = {"config": config, "data_dir": data_dir}
    settings = load_settings(**{name: value for name, value in options.items() if value})
    plugins = make_plugin_manager(settings)

    async def run() -> _T:
        ledger = open_credit_ledger(settings, plugins, durable=True)
        try:
            return await job(ledger)
        finally:
            await ledger.close()

    try:
        return asyncio.run(run())
    except Unavailable as error:
        raise ConfigurationError(f"{error.message}: {error.__cause__}") from error


def _amount(text: str) -> Decimal:
    from decimal import Decimal, InvalidOperation

    try:
        amount = Decimal(text)
    except InvalidOperation:
        raise typer.BadParameter(f"{text} is no amount of USD") from None
    exponent = amount.as_tuple().exponent
    if not amount.is_finite() or abs(amount) > 10**9 or not isinstance(exponent, int):
        raise typer.BadParameter("the amount must be at most a billion USD")
    if exponent < -18:
        raise typer.BadParameter("the amount must have at most 18 decimals")
    return amount


def _show_balance(account: str, balance: Balance, *, as_json: bool) -> None:
    amounts = {
        "bought": balance.bought,
        "used": balance.used,
        "reserved": balance.reserved,
        "available": balance.available,
    }
    facts = {"account": account} | {name: f"{usd:f}" for name, usd in amounts.items()}
    if as_json:
        _print_json(facts)
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for name in facts:
        table.add_column(name, justify="left" if name == "account" else "right")
    table.add_row(*facts.values())
    Console().print(table)


def _print_json(value: Any) -> None:  # JSON values of any kind
    import json

    typer.echo(json.dumps(value, indent=2))
