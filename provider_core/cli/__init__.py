"""The command line, `provider`. Commands import what they need inside, so that help is quick."""

import sys

import typer

from provider_core.cli.bench import bench
from provider_core.cli.chat import chat
from provider_core.cli.check import check
from provider_core.cli.credits import app as credits_app
from provider_core.cli.docs import docs
from provider_core.cli.doctor import doctor
from provider_core.cli.keys import app as keys_app
from provider_core.cli.plan import plan
from provider_core.cli.plugins import app as plugins_app
from provider_core.cli.pull import pull
from provider_core.cli.serve import serve
from provider_core.cli.usage import app as usage_app
from provider_core.cli.version import version
from provider_core.errors import ConfigurationError, PluginError, ProviderError

BUILT_IN = (
    "serve",
    "chat",
    "bench",
    "check",
    "credits",
    "docs",
    "doctor",
    "keys",
    "plan",
    "plugins",
    "pull",
    "usage",
    "version",
)


def make_cli() -> typer.Typer:
    """The command line without what plugins add."""
    app = typer.Typer(
        name="provider",
        help="Turn a folder with an ONNX model into a listed, billable LLM provider.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.command()(serve)
    app.command()(chat)
    app.command()(bench)
    app.command()(check)
    app.command()(docs)
    app.command()(doctor)
    app.command()(plan)
    app.command()(pull)
    app.add_typer(credits_app, name="credits")
    app.add_typer(keys_app, name="keys")
    app.add_typer(plugins_app, name="plugins")
    app.add_typer(usage_app, name="usage")
    app.command()(version)
    return app


def main() -> None:
    """Run `provider` on `sys.argv`; a known error is one line on stderr.

    Exits with 2 if a setting, a plugin or the command line is wrong and 1 for any other failure.
    """
    app = make_cli()
    try:
        if sys.argv[1:2] and sys.argv[1] in BUILT_IN:
            app()
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
