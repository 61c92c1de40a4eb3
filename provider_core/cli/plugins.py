"""`provider plugins`: what is loaded, from where, with which hooks."""

from typing import Annotated

import typer

app = typer.Typer(help="List the plugins that are loaded.", invoke_without_command=True)

AsJson = Annotated[bool, typer.Option("--json", help="One JSON array instead of a table.")]


@app.callback()
def plugins(context: typer.Context, *, as_json: AsJson = False) -> None:
    """List the plugins that are loaded, in the order they are asked."""
    if context.invoked_subcommand is None:
        list_plugins(as_json=as_json)


@app.command("list")
def list_plugins(*, as_json: AsJson = False) -> None:
    """List the plugins that are loaded, in the order they are asked."""
    import json
    from dataclasses import asdict

    from rich.console import Console
    from rich.table import Table

    from provider_core.plugins import make_plugin_manager
    from provider_core.settings import load_settings

    loaded = make_plugin_manager(load_settings()).describe()
    if as_json:
        typer.echo(json.dumps([asdict(info) for info in loaded], indent=2))
        return
    table = Table(box=None, pad_edge=False)
    for column in ("plugin", "package", "hooks", "module"):
        table.add_column(column, overflow="fold")
    for info in loaded:
        package = f"{info.distribution} {info.version}"
        table.add_row(info.name, package, ", ".join(info.hooks) or "none", info.path)
    Console().print(table)
