"""Settings of this plugin: `PROVIDER_REDIS_*`."""

from urllib.parse import urlsplit

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict


class RedisSettings(BaseSettings):
    """Which Redis, and for how long it is waited for."""

    model_config = SettingsConfigDict(
        env_prefix="PROVIDER_REDIS_",
        env_ignore_empty=True,
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,  # a URL holds a password
    )

    url: str | None = Field(
        None,
        pattern=r"^(redis|rediss|unix)://\S+$",
        repr=False,
        description="Redis that replicas share, `redis://user:password@host:6379/0`; `rediss` is "
        "TLS. Default: nothing is shared.",
    )
    prefix: str = Field(
        "provider-core",
        pattern=r"^[^\s{}]+$",
        description="Begins the name of every key; deployments that share nothing differ in it.",
    )
    timeout_s: float = Field(0.5, gt=0, description="Longest wait for an answer.")
    max_connections: int = Field(32, ge=1, description="Open ones, of limits and of credits each.")
    lease_s: float = Field(
        30, ge=1, description="Requests of a replica that died count as running for so long."
    )
    credits: bool = Field(
        default=True,
        description="Keep credits there, too; such a Redis must keep its data and evict nothing.",
    )
    event_retention_days: float = Field(
        7,
        gt=0,
        description="A charge is known for so long, and what a journal brings later is not "
        "charged.",
    )

    @field_validator("url")
    @classmethod
    def _is_clear(cls, url: str | None) -> str | None:
        """Refuse what is read otherwise than it is meant, and quoted where it then fails."""
        try:
            parts = urlsplit(url or "")
            is_clear = parts.port != 0 and "@" not in parts.path + parts.query + parts.fragment
        except ValueError:  # which may quote it
            is_clear = False
        if not is_clear:
            raise ValueError("write `/`, `?`, `#` and `@` in a password as %2F, %3F, %23 and %40")
        return url
