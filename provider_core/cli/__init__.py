"""The command line, `provider`. Commands import what they need inside, so that help is quick."""

import sys
from collections.abc import Collection
from importlib import import_module

import typer

from provider_core.errors import ConfigurationError, PluginError, ProviderError

BUILT_IN = (
    "serve",
    "chat",
    "bench",
    "check",
    "docs",
    "doctor",
    "plan",
    "pull",
    "credits",
    "keys",
    "plugins",
    "usage",
    "version",
)
"""Every command, in the order of the help; each is the module of its name."""

_GROUPS = {"credits", "keys", "plugins", "usage"}


def make_cli(commands: Collection[str] = BUILT_IN) -> typer.Typer:
    """The command line without what plugins add.

    Args:
        commands: Which of `BUILT_IN` it has.
    """
    app = typer.Typer(
        name="provider",
        help="Turn a folder with an ONNX model into a listed, billable LLM provider.",
        callback=lambda: None,  # so that one command alone keeps its name, too
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    for name in commands:
        module = import_module(f"provider_core.cli.{name}")
        if name in _GROUPS:
            app.add_typer(module.app, name=name)
        else:
            app.command(name)(getattr(module, name))
    return app


def main() -> None:
    """Run `provider` on `sys.argv`; a known error is one line on stderr.

    Exits with 2 if a setting, a plugin or the command line is wrong and 1 for any other failure.
    """
    try:
        if sys.argv[1:2] and sys.argv[1] in BUILT_IN:
            make_cli(sys.argv[1:2])()  # typer takes its time for each command
        app = make_cli()
        _add_plugin_commands(app)
        app()
    except ProviderError as error:
        typer.echo(f"provider: {error.message}", err=True)
        is_setup = isinstance(error, ConfigurationError | PluginError)
        raise SystemExit(2 if is_setup else 1) from None


def _add_plugin_commands(app: typer.Typer) -> None:
    """Ask `register_commands`; a broken plugin is reported and takes only its own commands away."""
    from provider_core import hookspecs
    from provider_core.plugins import make_plugin_manager
    from provider_core.settings import load_settings

    try:
        make_plugin_manager(load_settings()).every(hookspecs.register_commands, app=app)
    except (ConfigurationError, PluginError) as error:
        typer.echo(f"provider: {error.message}", err=True)
