"""Settings of this handler: `PROVIDER_RAY_*`. What else Ray Serve can do is in its own file."""

from pathlib import Path
from typing import Any

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from provider_core import ConfigurationError
from provider_core.server.handler_settings import read_handler_settings

PREFIX = "PROVIDER_RAY_"


class RaySettings(BaseSettings):
    """How many replicas there are, what each takes, and which gets what."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_ignore_empty=True, frozen=True)

    min_replicas: int = Field(1, ge=0, description="Fewest replicas; 0 starts one when asked.")
    max_replicas: int | None = Field(
        None, ge=1, description="Most replicas; default: the fewest, so that nothing scales."
    )
    target_ongoing_requests: float | None = Field(
        None, gt=0, description="Of one replica before another starts; default: its slots."
    )
    max_ongoing_requests: int | None = Field(
        None, ge=1, description="Most of one replica; default: slots and places in the queue."
    )
    num_cpus: float = Field(1, ge=0, description="Cores that Ray sets aside for a replica.")
    num_gpus: float = Field(0, ge=0, description="The same of GPUs; 0.5 puts two on one.")
    busy_factor: float = Field(
        2, ge=0, description="A replica that holds a prompt's beginning may be so much busier."
    )
    port: int | None = Field(
        None, ge=1, le=65535, description="Where ingresses listen themselves, past Ray's proxy."
    )
    log_file: Path | None = Field(
        None, description="Lines of a machine's replicas; default: `usage.log` in `data_dir`."
    )


def read_settings(**overrides: Any) -> RaySettings:
    """Read the environment.

    Args:
        **overrides: What wins over it, by the names of the fields.

    Raises:
        ConfigurationError: A value does not fit, or the fewest are more than the most.
    """
    settings = read_handler_settings(RaySettings, **overrides)
    if settings.max_replicas is None and settings.min_replicas == 0:
        raise ConfigurationError(f"{PREFIX}MAX_REPLICAS: say how many where the fewest are none")
    if settings.max_replicas is not None and settings.max_replicas < settings.min_replicas:
        raise ConfigurationError(f"{PREFIX}MAX_REPLICAS: less than {PREFIX}MIN_REPLICAS")
    return settings
