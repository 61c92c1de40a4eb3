"""`provider version`."""

import typer

import provider_core


def version() -> None:
    """Print the version."""
    typer.echo(f"provider-core {provider_core.__version__}")
