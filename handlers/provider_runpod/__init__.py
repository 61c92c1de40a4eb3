"""Jobs of RunPod's queue endpoints: `provider serve --platform runpod`."""

from aiohttp import web

from provider_core import hookimpl


@hookimpl
def setup_app(app: web.Application) -> None:
    """Take jobs for this application."""
    from provider_core.server.in_process import IN_PROCESS
    from provider_runpod.worker import make_worker

    app[IN_PROCESS].work(make_worker())
