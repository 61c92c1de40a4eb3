"""Every setting of the server: one object, built once, passed down.

Sources, strongest first: the command line, `PROVIDER_*` in the environment, the configuration file
(`provider.toml`, section 8 of the architecture), the defaults here. An invalid value stops
start-up. A nested table is `PROVIDER_LIMITS__MAX_BODY_BYTES` in the environment.
"""

import tomllib
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from provider_core.errors import ConfigurationError

DecimalString = Annotated[str, Field(pattern=r"^(0|[1-9][0-9]*)(\.[0-9]{1,18})?$")]
"""Money: digits with an optional fraction, never a float, so that it is exact."""


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class LimitSettings(_Table):
    """`[limits]`: what one client may cost, whatever its key."""

    max_body_bytes: int = Field(4 * 2**20, ge=1024, description="Largest request body.")
    headers_timeout_s: float = Field(10, gt=0, description="Time to complete the headers.")
    body_timeout_s: float = Field(30, gt=0, description="Time to complete the body.")
    keepalive_timeout_s: float = Field(75, gt=0, description="Idle keep-alive connections close.")
    max_connections: int = Field(2048, ge=1, description="Open connections in all.")
    request_timeout_s: float = Field(600, gt=0, description="Deadline of a request without one.")
    write_stall_s: float = Field(30, gt=0, description="A client that reads nothing is cut.")
    write_buffer_bytes: int = Field(65536, ge=1024, description="Unsent bytes kept per stream.")
    sse_keepalive_s: float = Field(10, gt=0, description="Silence before a keep-alive comment.")
    queue_factor: float = Field(2, ge=0, description="Waiting sequences allowed, times slots.")
    queue_wait_s: float = Field(10, gt=0, description="Longest predicted wait that is admitted.")
    max_n: int = Field(8, ge=1, le=128, description="Most choices of one request.")
    max_prompts: int = Field(64, ge=1, description="Most prompts of one completions request.")
    max_messages: int = Field(2048, ge=1, description="Most messages of one chat request.")
    template_timeout_s: float = Field(1, gt=0, description="Longest rendering of a chat template.")


class LoggingSettings(_Table):
    """`[logging]`: structured lines on stdout."""

    level: str = Field("info", pattern="^(debug|info|warning|error)$", description="Least level.")
    format: str = Field(
        "auto",
        pattern="^(auto|json|pretty)$",
        description="`auto` is pretty when stdout is a terminal.",
    )


class ServerSettings(_Table):
    """`[server]`: how the process serves and stops."""

    drain_delay_s: float = Field(0, ge=0, description="Serve on after a stop signal for so long.")
    grace_s: float = Field(30, gt=3, description="From stop signal to exit; streams get 3 s less.")
    ops_port: int | None = Field(None, ge=0, le=65535, description="Own port for /metrics.")
    metrics_public: bool = Field(False, description="Serve /metrics beyond loopback.")  # noqa: FBT003
    cors_origins: tuple[str, ...] = Field((), description="Origins browsers may call from; `*`.")
    watchdog_s: float = Field(60, gt=0, description="A step longer than this ends the process.")
    region: str = Field("local", max_length=32, description="Region id in the usage event.")
    country: str | None = Field(None, pattern="^[A-Z]{2}$", description="ISO 3166-1 alpha-2.")


class AccessSettings(_Table):
    """`[access]`: who may call."""

    require_key: bool = Field(True, description="`false` serves everybody as `anonymous`.")  # noqa: FBT003
    public_models: bool = Field(False, description="GET /v1/models without a key.")  # noqa: FBT003


class PricingSettings(_Table):
    """`[model.pricing]`: USD per unit, as strings."""

    prompt: DecimalString = "0"
    completion: DecimalString = "0"
    request: DecimalString = "0"
    image: DecimalString = "0"
    input_cache_read: DecimalString | None = None
    input_cache_write: DecimalString | None = None
    internal_reasoning: DecimalString | None = None
    version: str | None = Field(None, max_length=64)


class ModelSettings(_Table):
    """`[[model]]`: one model to serve."""

    id: str = Field(min_length=1, max_length=256, pattern=r"^[^\s\x00-\x1f]+$")
    source: str = Field(min_length=1)
    backend: str | None = None
    precision: str | None = None
    aliases: tuple[str, ...] = ()
    name: str = ""
    description: str = ""
    family: str | None = None
    owned_by: str = "provider-core"
    knowledge_cutoff: str | None = None
    languages: tuple[str, ...] = ()
    created: int = Field(0, ge=0)
    max_model_len: int | None = Field(None, ge=2)
    max_output_tokens: int | None = Field(None, ge=1)
    max_num_seqs: int = Field(32, ge=1, le=1024)
    quantization: str | None = None
    is_ready: bool = True
    pricing: PricingSettings = PricingSettings()
    options: dict[str, Any] = Field(default_factory=dict)  # a backend's own, checked by it


class EngineSettings(_Table):
    """`[engine]`: how steps are cut."""

    prefill_chunk_tokens: int = Field(256, ge=1, description="Most prompt tokens in one step.")
    max_kv_tokens: int | None = Field(
        None, ge=1, description="Tokens all running sequences may reserve; default: slots x length."
    )


class ProviderSettings(_Table):
    """`[provider]`: the provider's own facts, for listings and the onboarding form."""

    model_config = ConfigDict(extra="allow", frozen=True)

    name: str = "provider-core"
    slug: str = "provider-core"


class Settings(BaseSettings):
    """All settings of one server."""

    model_config = SettingsConfigDict(
        env_prefix="PROVIDER_",
        env_nested_delimiter="__",
        extra="ignore",
        frozen=True,
    )

    host: str = Field("127.0.0.1", description="Address to bind.")
    port: int = Field(8000, ge=0, le=65535, description="Port to bind; 0 picks a free one.")
    api_key: str | None = Field(None, min_length=8, repr=False, description="A fixed key.")
    data_dir: Path = Field(Path(".provider"), description="Keys and caches live here.")
    config: Path | None = Field(None, description="The configuration file.")
    model: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="Model folders or URIs to serve beside the file's; comma-separated."
    )
    backend: str | None = Field(None, description="Backend of models that name none.")
    platform: str = Field("local", max_length=32, description="Platform name in the usage event.")
    plugins: Annotated[tuple[str, ...] | None, NoDecode] = Field(
        None, description="Plugins to load, comma-separated; default: all that are installed."
    )
    provider: ProviderSettings = ProviderSettings()
    models: tuple[ModelSettings, ...] = Field((), description="The file's `[[model]]` tables.")
    engine: EngineSettings = EngineSettings()
    limits: LimitSettings = LimitSettings()
    access: AccessSettings = AccessSettings()
    logging: LoggingSettings = LoggingSettings()
    server: ServerSettings = ServerSettings()
