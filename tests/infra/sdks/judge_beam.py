"""Reads a Beam service with Beam's own client."""

import runpy
from pathlib import Path
from typing import Any

from beam import Service
from judging import judge


def read(path: Path) -> dict[str, Any]:
    """What the client would deploy."""
    service = runpy.run_path(str(path))["provider"]
    if not isinstance(service, Service):
        raise TypeError(f"{type(service).__name__} is not a service")
    return {
        "name": service.name,
        "image": service.image.base_image,
        "command": service.entrypoint,
        "ports": service.ports,
        "environment": dict(each.split("=", 1) for each in service.env),
        "secrets": [secret.name for secret in service.secrets],
        "memory_mb": service.memory,
        "keep_warm_seconds": service.keep_warm_seconds,
        "max_replicas": service.autoscaler.max_containers,
    }


if __name__ == "__main__":
    judge(read)
