"""`provider plugins`: what is loaded, from where, with which hooks; and packages for new ones."""

from pathlib import Path
from typing import Annotated

import typer

from provider_core.cli.new_plugin import Kind

app = typer.Typer(help="List plugins, or begin a new one.", invoke_without_command=True)

AsJson = Annotated[bool, typer.Option("--json", help="One JSON array instead of a table.")]


@app.callback()
def plugins(context: typer.Context, *, as_json: AsJson = False) -> None:
    """List the plugins that are loaded, in the order they are asked."""
    if context.invoked_subcommand is None:
        list_plugins(as_json=as_json)


@app.command("new")
def new_plugin(
    name: Annotated[str, typer.Argument(help="Of the plugin, as --backend will say it.")],
    *,
    kind: Annotated[
        Kind,
        typer.Option(
            help="backend: a runner, which the core batches for; engine: it batches by itself."
        ),
    ] = "backend",
    parent: Annotated[
        Path, typer.Option("--in", metavar="FOLDER", help="Where the package's folder is made.")
    ] = Path(),
) -> None:
    """Write the package of a new plugin, which works and is tested, to be filled."""
    from provider_core.cli.new_plugin import write_plugin

    folder = write_plugin(name, kind, parent)
    typer.echo(f"{folder} is written; now: pip install -e '{folder}[test]' && pytest {folder}")


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
