"""Replicas on Ray Serve: `serve run provider_ray.application:make_app`.

Each replica is a server in a process of its own, `provider serve --platform ray`, which this plugin
is loaded into; the deployments around it are in `application`.
"""

from typing import TYPE_CHECKING

from provider_core import hookimpl

if TYPE_CHECKING:  # this package is looked at before the socket opens, and aiohttp takes 0.1 s
    from aiohttp import web


@hookimpl
def setup_app(app: "web.Application") -> None:
    """Take requests from the replica that started this server."""
    from provider_core.server.in_process import IN_PROCESS
    from provider_ray.worker import make_worker

    app[IN_PROCESS].work(make_worker())
