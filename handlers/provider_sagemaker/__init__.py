"""SageMaker's one path for everything: `provider serve --platform sagemaker`."""

from typing import TYPE_CHECKING

from provider_core import hookimpl

if TYPE_CHECKING:  # this package is looked at before the socket opens, and aiohttp takes 0.1 s
    from aiohttp import web


@hookimpl
def setup_app(app: "web.Application") -> None:
    """Add what SageMaker calls; the core has GET /ping."""
    from provider_core.server.handler_settings import read_handler_settings
    from provider_core.server.in_process import IN_PROCESS
    from provider_sagemaker.routes import Invocations
    from provider_sagemaker.settings import SageMakerSettings

    settings = read_handler_settings(SageMakerSettings)
    app[IN_PROCESS].enable()
    Invocations(app[IN_PROCESS], settings).add_routes(app)
