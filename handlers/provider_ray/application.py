"""The application of Ray Serve: an ingress, and replicas that each hold a server.

`serve run provider_ray.application:make_app` starts it with the settings of this shell, or
`serve deploy` with a file of Ray's.
"""

import asyncio
import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import ray
from ray import serve
from ray.serve.config import AutoscalingConfig, RequestRouterConfig
from ray.serve.handle import DeploymentHandle

from provider_core.server.configuration import Configuration, read_configuration
from provider_ray.calls import Call
from provider_ray.http_server import HttpServer
from provider_ray.ingress import Ingress
from provider_ray.replies import ReplyAddress, ReplyListener, send_reply
from provider_ray.router import PrefixRouter
from provider_ray.server_process import ServerProcess
from provider_ray.settings import RaySettings, read_settings

PLATFORM = "ray"

_HEALTH_PERIOD_S = 5.0  # how long a replica that has ended may go unnoticed
_INGRESS_CPUS = 0.1
_EXIT_SERVER_ENDED = 71  # sysexits.h's EX_OSERR


class Replica:
    """One server, and what Ray asks of it.

    Args:
        environment: The server's variables.
        log_file: For its lines.
    """

    async def __init__(  # type: ignore[misc]  # Ray awaits it
        self, environment: Mapping[str, str], log_file: str
    ) -> None:
        self._server = await ServerProcess.start(environment, Path(log_file))
        self._watching = asyncio.create_task(self._end_with_the_server())

    async def answer(self, call: Call, address: ReplyAddress) -> None:
        """Answer a request, past Ray; what runs is what Ray counts."""
        await send_reply(address, self._server.answer(call))

    async def check_health(self) -> None:
        """Raise unless requests are served."""
        await self._server.check_ready()

    async def __del__(self) -> None:
        """Have the server end; Ray has waited for its requests, and calls this once."""
        if hasattr(self, "_watching"):
            self._server.stop()
            await self._watching

    async def _end_with_the_server(self) -> None:
        """End this process, too: Ray then starts another at once, as any platform does."""
        await self._server.until_ended()
        if not self._server.is_stopping:
            os._exit(_EXIT_SERVER_ENDED)


@serve.ingress()
class IngressReplica:
    """What Ray's proxies call.

    Args:
        replicas: Of the servers.
        max_body_bytes: Of a request.
        start_server: Starts a server of the ingress's own, if there is to be one.
    """

    def __init__(
        self,
        replicas: DeploymentHandle,
        max_body_bytes: int,
        start_server: Callable[..., HttpServer] | None,
    ) -> None:
        self._ingress = Ingress(
            replicas.options(method_name="answer").remote,
            ReplyListener(ray.util.get_node_ip_address()),
            max_body_bytes=max_body_bytes,
            start_server=start_server,
        )

    def __serve_build_asgi_app__(self) -> Ingress:
        """Give Ray the application."""
        return self._ingress


def make_app(arguments: dict[str, Any]) -> serve.Application:
    """Build the application; Ray's tools call this.

    Args:
        arguments: What they were given as `NAME=VALUE`: settings of this handler, which win over
            `PROVIDER_RAY_NAME`.

    Raises:
        ConfigurationError: A setting is invalid.
    """
    settings = read_settings(**arguments)
    configuration = read_configuration(PLATFORM)
    limits, grace_s = configuration.settings.limits, configuration.settings.server.grace_s
    data_dir = configuration.settings.data_dir.absolute()
    replicas = serve.deployment(
        Replica,
        name="replicas",
        **_scale(settings, configuration),
        ray_actor_options={"num_cpus": settings.num_cpus, "num_gpus": settings.num_gpus},
        graceful_shutdown_timeout_s=grace_s,
        health_check_period_s=_HEALTH_PERIOD_S,
        request_router_config=RequestRouterConfig(
            request_router_class=PrefixRouter,
            request_router_kwargs={"busy_factor": settings.busy_factor},
        ),
    ).bind(
        _environment(configuration, data_dir),
        str((settings.log_file or data_dir / "usage.log").absolute()),
    )
    ingress = serve.deployment(
        IngressReplica,
        name="ingress",
        ray_actor_options={"num_cpus": _INGRESS_CPUS},
        max_ongoing_requests=limits.max_connections,
        graceful_shutdown_timeout_s=grace_s,
    )
    start_server = None
    if settings.port is not None:
        start_server = partial(
            HttpServer.start,
            host=configuration.settings.host,
            port=settings.port,
            max_connections=limits.max_connections,
            keep_alive_s=limits.keepalive_timeout_s,
        )
    return ingress.bind(replicas, limits.max_body_bytes, start_server)


def _scale(settings: RaySettings, configuration: Configuration) -> dict[str, Any]:
    """How many replicas, and how much for each: Ray's names."""
    num_slots = configuration.num_slots
    scale: dict[str, Any] = {
        "max_ongoing_requests": settings.max_ongoing_requests or configuration.num_places,
        "max_queued_requests": num_slots,  # of one ingress, while every replica is full
    }
    if settings.max_replicas in {None, settings.min_replicas}:
        return scale | {"num_replicas": settings.min_replicas}
    return scale | {
        "autoscaling_config": AutoscalingConfig(
            min_replicas=settings.min_replicas,
            max_replicas=settings.max_replicas,
            target_ongoing_requests=settings.target_ongoing_requests or num_slots,
        )
    }


def _environment(configuration: Configuration, data_dir: Path) -> dict[str, str]:
    """This process's settings for servers on whichever machine; paths are those of all machines."""
    variables = {
        name: value
        for name, value in os.environ.items()  # noqa: TID251 - handed on
        if name.upper().startswith("PROVIDER_")
    }
    variables |= {
        "PROVIDER_PLATFORM": PLATFORM,
        "PROVIDER_DATA_DIR": str(data_dir),
        "PROVIDER_PORT": "0",  # replicas share their machine
    }
    if (config := configuration.settings.config) is not None:
        variables["PROVIDER_CONFIG"] = str(config.absolute())
    return variables
