"""What is deployed to Cerebrium, judged by the fields that its reference documents.

Its package on PyPI is no judge: it downloads the command-line tool, which has the server read the
file, and itself checks little more than that there is a name.
"""

import json
import re
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from provider_core.server.configuration import read_configuration
from provider_core.server.health import BUILT_IN
from tests.infra import images
from tests.infra.deployments import CPUS, MEMORY_MB, MOST_REPLICAS

FOLDER = images.ROOT / "infra/cerebrium"
TEXT = (FOLDER / "cerebrium.toml").read_text(encoding="utf-8")
DOCKERFILE = (FOLDER / "Dockerfile").read_text(encoding="utf-8")


class Table(BaseModel):
    """One of the file's: no other fields, no other types."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Deployment(Table):
    """`[cerebrium.deployment]`, as far as it goes together with a Dockerfile."""

    name: str
    disable_auth: bool = True
    include: list[str] = ["*"]
    exclude: list[str] = [".*"]
    docker_base_image_url: str = "debian:bookworm-slim"
    deployment_initialization_timeout: Annotated[int, Field(ge=60, le=830)] = 600


class Hardware(Table):
    """`[cerebrium.hardware]`."""

    cpu: float
    memory: float
    compute: str | list[str] = "CPU"
    gpu_count: int = 0
    provider: str | None = None
    region: str | None = None


class Scaling(Table):
    """`[cerebrium.scaling]`."""

    min_replicas: int = 0
    max_replicas: int = 1
    replica_concurrency: int = 100
    response_grace_period: int = 900
    cooldown: int = 10
    scaling_metric: Literal[
        "concurrency_utilization", "requests_per_second", "cpu_utilization", "memory_utilization"
    ] = "concurrency_utilization"
    scaling_target: int = 100
    scaling_buffer: int | None = None
    evaluation_interval_seconds: Annotated[int, Field(ge=6, le=300)] = 30
    load_balancing_algorithm: Literal[
        "", "round-robin", "first-available", "min-connections", "random-choice-2"
    ] = ""
    compute_tier: Literal["interruptible", "protected"] = "interruptible"
    roll_out_duration_seconds: Annotated[int, Field(le=600)] = 0


class CustomRuntime(Table):
    """`[cerebrium.runtime.custom]`, which starts what the Dockerfile says."""

    port: int
    dockerfile_path: str
    healthcheck_endpoint: str = ""
    readycheck_endpoint: str = ""


class Runtime(Table):
    """`[cerebrium.runtime]`."""

    custom: CustomRuntime


class Cerebrium(Table):
    """`[cerebrium]`."""

    deployment: Deployment
    hardware: Hardware
    scaling: Scaling
    runtime: Runtime


def read(text: str) -> Cerebrium:
    """The file's tables.

    Raises:
        ValidationError: A field is not one that is documented, or of another type.
    """
    tables: dict[str, Any] = tomllib.loads(text)
    assert list(tables) == ["cerebrium"]
    return Cerebrium.model_validate(tables["cerebrium"])


def test_it_is_what_the_profile_says() -> None:
    """And the server asks for keys itself, so the platform does not."""
    app, there = read(TEXT), read_configuration("cerebrium")
    custom, scaling = app.runtime.custom, app.scaling

    assert custom.port == there.settings.port
    assert {custom.healthcheck_endpoint, custom.readycheck_endpoint} <= BUILT_IN.keys()
    assert BUILT_IN[custom.healthcheck_endpoint].starting == 200  # it restarts what fails this one
    assert BUILT_IN[custom.readycheck_endpoint].starting == 503
    assert scaling.response_grace_period == there.settings.server.grace_s
    assert scaling.response_grace_period > there.settings.limits.request_timeout_s
    assert scaling.replica_concurrency == there.num_places
    assert scaling.scaling_target == round(100 * there.num_slots / there.num_places)
    assert app.deployment.disable_auth
    assert (scaling.min_replicas, scaling.max_replicas) == (0, MOST_REPLICAS)
    assert (app.hardware.cpu, 1024 * app.hardware.memory) == (CPUS, MEMORY_MB)


def test_the_image_starts_the_server_there() -> None:
    """By its own entrypoint, as a command."""
    custom = read(TEXT).runtime.custom
    commands = dict(re.findall(r"^([A-Z]+) (.+)$", DOCKERFILE, re.MULTILINE))

    assert (FOLDER / custom.dockerfile_path).read_text(encoding="utf-8") == DOCKERFILE
    assert Path(custom.dockerfile_path).name in read(TEXT).deployment.include
    assert commands["FROM"] == images.REFERENCE
    assert int(commands["EXPOSE"]) == custom.port
    assert json.loads(commands["ENTRYPOINT"]) == []
    serve = ["serve", "--platform", "cerebrium"]
    assert json.loads(commands["CMD"]) == [*images.entrypoint(), *serve]


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("replica_concurrency", "concurrency"),
        ("port = 8000", 'port = "8000"'),
        ("scaling_metric = ", "metric = "),
        ('"concurrency_utilization"', '"concurrency"'),
        ("[cerebrium.runtime.custom]", "[cerebrium.custom]"),
        ("cpu = 4.0", "cores = 4.0"),
    ],
)
def test_a_mistake_is_refused(right: str, wrong: str) -> None:
    """So the fields do judge."""
    assert TEXT.count(right) == 1
    with pytest.raises(ValidationError):
        read(TEXT.replace(right, wrong))
