"""Invocations of AWS Lambda: `provider serve --platform lambda`."""

from aiohttp import web

from provider_core import hookimpl


@hookimpl
def setup_app(app: web.Application) -> None:
    """Take invocations for this application."""
    from provider_core.server.in_process import IN_PROCESS
    from provider_lambda.worker import make_worker

    app[IN_PROCESS].work(make_worker())
