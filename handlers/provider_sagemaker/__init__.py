"""SageMaker's one path for everything: `provider serve --platform sagemaker`."""

from aiohttp import web

from provider_core import hookimpl


@hookimpl
def setup_app(app: web.Application) -> None:
    """Add what SageMaker calls; the core has GET /ping."""
    from provider_core.server.in_process import IN_PROCESS
    from provider_sagemaker.routes import Invocations
    from provider_sagemaker.settings import read_settings

    app[IN_PROCESS].enable()
    Invocations(app[IN_PROCESS], read_settings()).add_routes(app)
