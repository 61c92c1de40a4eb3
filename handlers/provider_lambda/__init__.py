"""Invocations of AWS Lambda: `provider serve --platform lambda`."""

from typing import TYPE_CHECKING

from provider_core import hookimpl

if TYPE_CHECKING:  # this package is looked at before the socket opens, and aiohttp takes 0.1 s
    from aiohttp import web


@hookimpl
def setup_app(app: "web.Application") -> None:
    """Take invocations for this application."""
    from provider_core.server.in_process import IN_PROCESS
    from provider_lambda.worker import make_worker

    app[IN_PROCESS].work(make_worker())
