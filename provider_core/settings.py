"""Every setting of the server: one object, built once, passed down.

Sources, strongest first: the command line, `PROVIDER_*` in the environment, the configuration file
(`provider.toml`), the platform's profile, the defaults here. An invalid value and an unknown key
stop start-up. A nested table is `PROVIDER_LIMITS__MAX_BODY_BYTES` in the environment.
`docs/configuration.md` lists all.
"""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from provider_core.billing_settings import (
    IdempotencySettings,
    JournalSettings,
    LedgerSettings,
    ResponseCacheSettings,
)
from provider_core.errors import ConfigurationError
from provider_core.model_settings import ModelSettings, SecretUri, Table
from provider_core.platforms import ProbeSettings, platform_settings, suggest_platform
from provider_core.settings_file import read_settings_file, split_names

DEFAULT_FILE = Path("provider.toml")
"""Read from the working directory when no other file is named."""

# What Kubernetes sets as NAME_PORT in the containers around a service called NAME.
_SERVICE_LINK = re.compile(r"(tcp|udp|sctp)://\S+:\d+")


Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(split_names)]
"""A list in the file, comma-separated in the environment."""


class LimitSettings(Table):
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
    max_inputs: int = Field(
        2048, ge=1, description="Most texts of one embeddings or rerank request."
    )
    max_input_tokens: int = Field(300_000, ge=1, description="Most tokens of all of them together.")
    max_messages: int = Field(2048, ge=1, description="Most messages of one chat request.")
    template_timeout_s: float = Field(
        1, gt=0, description="Longest rendering of a chat template, processor time of its thread."
    )
    grammar_timeout_s: float = Field(1, gt=0, description="Longest compilation of a schema.")
    grammar_cache_mib: int = Field(64, ge=0, description="MiB of compiled schemas that are kept.")
    client_grammars: bool = Field(False, description="Let clients send Lark grammars.")  # noqa: FBT003
    requests_per_minute: int | None = Field(None, ge=1, description="Of one key; default: any.")
    requests_per_day: int | None = Field(None, ge=1, description="Of one key; default: any.")
    tokens_per_minute: int | None = Field(
        None, ge=1, description="Of one key, prompts and replies; default: any."
    )
    concurrent_requests: int | None = Field(
        None, ge=1, description="Of one key at the same time; default: any."
    )


class ImageSettings(Table):
    """`[images]`: what clients may send to models that see."""

    fetch: bool = Field(True, description="Fetch https addresses; `false` leaves data URLs.")  # noqa: FBT003
    max_images: int = Field(8, ge=1, description="Most images of one request.")
    max_bytes: int = Field(10 * 2**20, ge=1024, description="Largest image file.")
    max_pixels: int = Field(2**24, ge=1, description="Most pixels of an image, width times height.")
    max_request_pixels: int = Field(
        64_000_000, ge=1, description="Most pixels of all images of one request."
    )
    memory_mib: int = Field(
        512, ge=1, description="MiB of decoded images of all requests; more of them wait."
    )
    timeout_s: float = Field(5, gt=0, description="Longest fetch of an image, redirects included.")


class LoggingSettings(Table):
    """`[logging]`: structured lines on stdout."""

    level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least level.")
    format: Literal["auto", "json", "pretty"] = Field(
        "auto", description="`auto` is pretty when stdout is a terminal."
    )


class ServerSettings(Table):
    """`[server]`: how the process serves and stops."""

    drain_delay_s: float = Field(0, ge=0, description="Serve on after a stop signal for so long.")
    grace_s: float = Field(30, gt=3, description="From stop signal to exit; streams get 3 s less.")
    ops_port: int | None = Field(None, ge=0, le=65535, description="Own port for /metrics.")
    probe_port: int | None = Field(
        None, ge=0, le=65535, description="A second port, for health checks that are sent there."
    )
    client_address_header: str | None = Field(
        None, description="Trusted to end with the client's address, as the proxy in front sees it."
    )
    request_id_header: str = Field(
        "X-Request-Id", description="Where the proxy in front, or the client, names a request."
    )
    metrics_public: bool = Field(False, description="Serve /metrics beyond loopback.")  # noqa: FBT003
    cors_origins: Names = Field((), description="Origins browsers may call from; `*` is any.")
    reasoning_content: bool = Field(
        False,  # noqa: FBT003
        description="Name reasoning `reasoning_content`, too.",
    )
    checkpoint_url: str | None = Field(
        None, pattern="^http://", description="POST here for a snapshot once models are loaded."
    )
    watchdog_s: float = Field(60, gt=0, description="A step longer than this ends the process.")
    region: str = Field("local", max_length=32, description="Region id in the usage event.")
    country: str | None = Field(None, pattern="^[A-Z]{2}$", description="ISO 3166-1 alpha-2.")


class AccessSettings(Table):
    """`[access]`: who may call."""

    require_key: bool = Field(True, description="`false` serves everybody as `anonymous`.")  # noqa: FBT003
    public_models: bool = Field(False, description="GET /v1/models without a key.")  # noqa: FBT003
    private_models: bool = Field(False, description="GET /api/v1/models needs a key.")  # noqa: FBT003
    keys_file: SecretUri | Path | None = Field(
        None, union_mode="left_to_right", description="A TOML file with further keys, or its URI."
    )
    pepper: str | None = Field(
        None, repr=False, description="URI of the stored keys' pepper; default: in `data_dir`."
    )
    failed_keys_per_minute: int = Field(
        60, ge=1, description="Wrong keys from one address; more are a 429."
    )


class EngineSettings(Table):
    """`[engine]`: how steps are cut."""

    prefill_chunk_tokens: int = Field(512, ge=16, description="Most prompt tokens in one step.")
    target_itl_s: float = Field(
        0.15, gt=0, description="Inter-token latency kept by cutting prompts."
    )
    max_kv_tokens: int | None = Field(
        None, ge=1, description="Tokens all running sequences may reserve; default: slots x length."
    )
    encoder_batch_tokens: int = Field(
        4096, ge=1, description="Most tokens in one batch of an encoder, padding included."
    )
    speculation: Literal["auto", "prompt_lookup", "off"] = Field(
        "auto",
        description="`prompt_lookup` tries what the text suggests, several ids a call, at one or "
        "two requests; `auto` does so where the text stays the same; `off` never.",
    )


class ProviderSettings(Table):
    """`[provider]`: the provider's own facts, for listings and the onboarding form."""

    model_config = ConfigDict(extra="allow", frozen=True)

    name: str = Field("provider-core", description="The provider's name in listings.")
    slug: str = Field(
        "provider-core",
        pattern=r"^[a-z0-9][a-z0-9-]*$",
        description="Its short name in addresses and ids.",
    )
    base_url: str | None = Field(
        None,
        pattern=r"^https?://[^/\s]+$",
        description="Where requests go, for documents; default: where the document was asked for.",
    )
    website_url: str | None = Field(None, description="For people.")
    privacy_policy_url: str | None = Field(None, description="What is done with their data.")
    terms_of_service_url: str | None = Field(None, description="The contract.")
    status_page_url: str | None = Field(None, description="How it is right now.")
    docs_url: str | None = Field(None, description="How to use it.")
    billing_policy_url: str | None = Field(
        None, description="What is charged for cancelled and failed requests."
    )
    rate_limit_policy_url: str | None = Field(None, description="Limits and how to raise them.")
    support_email: str | None = Field(None, description="For customers.")
    technical_email: str | None = Field(None, description="For marketplaces.")
    headquarters: str | None = Field(None, pattern="^[A-Z]{2}$", description="ISO 3166-1 alpha-2.")
    countries: Names = Field(
        (), description="Where requests are served, ISO 3166-1 alpha-2; default: `server.country`."
    )
    certifications: Names = Field(
        (), description="Held ones, as listings name them, such as `hipaa,soc2`."
    )
    retention_days: float | None = Field(
        None, ge=0, description="How long prompts are kept anywhere; 0 is zero data retention."
    )
    trains_on_prompts: bool | None = Field(None, description="Whether anybody trains on prompts.")

    @property
    def collects_data(self) -> bool | None:
        """Whether prompts are kept or trained on; `None` if the configuration does not say."""
        if self.retention_days or self.trains_on_prompts:
            return True
        is_said = self.retention_days is not None and self.trains_on_prompts is not None
        return False if is_said else None


class Settings(BaseSettings):
    """All settings of one server. Building one reads nothing; `load_settings` does."""

    model_config = SettingsConfigDict(
        env_prefix="PROVIDER_",
        env_nested_delimiter="__",
        env_ignore_empty=True,
        extra="forbid",
        frozen=True,
    )

    host: str = Field("127.0.0.1", description="Address to bind.")
    port: int = Field(8000, ge=0, le=65535, description="Port to bind; 0 picks a free one.")
    api_key: str | None = Field(
        None, min_length=8, repr=False, description="A fixed key, of 8 characters at least."
    )
    data_dir: Path = Field(Path(".provider"), description="Keys, bills and caches live here.")
    config: Path | None = Field(None, description="The configuration file.")
    model: Names = Field(
        (), description="Model folders or URIs to serve beside the file's; comma-separated."
    )
    backend: str | None = Field(None, description="Backend of models that name none.")
    build: bool = Field(False, description="Let backends build what they lack before serving.")  # noqa: FBT003
    platform: str = Field(
        "local", max_length=32, description="Where this runs: its profile, its name in events."
    )
    plugins: Names | None = Field(
        None, description="Plugins to load, comma-separated; default: all that are installed."
    )
    provider: ProviderSettings = ProviderSettings()
    models: tuple[ModelSettings, ...] = Field((), description="The file's `[[model]]` tables.")
    engine: EngineSettings = EngineSettings()
    limits: LimitSettings = LimitSettings()
    images: ImageSettings = ImageSettings()
    access: AccessSettings = AccessSettings()
    journal: JournalSettings = JournalSettings()
    ledger: LedgerSettings = LedgerSettings()
    idempotency: IdempotencySettings = IdempotencySettings()
    response_cache: ResponseCacheSettings = ResponseCacheSettings()
    logging: LoggingSettings = LoggingSettings()
    server: ServerSettings = ServerSettings()
    probes: dict[Annotated[str, Field(pattern="^/")], ProbeSettings] = Field(
        {}, description="Further paths of health checks, and what they answer when."
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 - the signature is pydantic's
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Take arguments only, so that a `Settings` built in a test is what the test says."""
        return (init_settings,)


def load_settings(**overrides: object) -> Settings:
    """Read every source and check the result.

    Args:
        **overrides: What the command line says, by the names of `Settings`' fields.

    Raises:
        ConfigurationError: A file that cannot be read, an unknown key or an invalid value; the
            message names the setting, what kind of value it has, and where it was set.
    """
    try:
        environment = EnvSettingsSource(Settings)()
    except SettingsError as error:
        raise ConfigurationError(f"the environment holds invalid JSON: {error}") from error
    if ignored_variables():
        environment.pop("port", None)
    path = overrides.get("config") or environment.get("config")
    file = read_settings_file(Path(str(path))) if path else {}
    if not path and DEFAULT_FILE.exists():
        path, file = DEFAULT_FILE, read_settings_file(DEFAULT_FILE)
    sources: list[tuple[str, Mapping[str, object]]] = [
        ("the command line", overrides),
        ("the environment", environment),
        (str(path), file),
    ]
    named = [values["platform"] for _, values in sources if "platform" in values]
    if named:
        platform = str(named[0])
        profile = platform_settings(platform, os.environ)  # noqa: TID251 - read here
        sources.append((f"the profile of platform {platform}", profile))
    merged: dict[str, Any] = {}
    for _, values in reversed(sources):
        merged = _merge(merged, values)
    merged["config"] = path
    try:
        return Settings(**merged)
    except ValidationError as error:
        details = [_describe(detail, sources) for detail in error.errors(include_url=False)]
        raise ConfigurationError("; ".join(details)) from None  # its text holds the values


def ignored_variables() -> tuple[str, ...]:
    """Variables with a setting's name that are none, which Kubernetes made for a service."""
    port = os.environ.get("PROVIDER_PORT", "")  # noqa: TID251 - read here
    return ("PROVIDER_PORT",) if _SERVICE_LINK.fullmatch(port) else ()


def suggested_platform(settings: Settings) -> str | None:
    """The platform that was probably meant, if it was not named, or not as it is called."""
    return suggest_platform(os.environ, settings.platform)  # noqa: TID251 - read here


def _merge(weak: Mapping[str, Any], strong: Mapping[str, Any]) -> dict[str, Any]:
    """Tables key by key, everything else whole."""
    merged = dict(weak)
    for key, value in strong.items():
        below = merged.get(key)
        if isinstance(value, Mapping) and isinstance(below, Mapping):
            merged[key] = _merge(below, value)
        else:
            merged[key] = value
    return merged


def _describe(detail: ErrorDetails, sources: Sequence[tuple[str, Mapping[str, object]]]) -> str:
    """Say what is wrong and where, never the value: it may be a secret."""
    loc = detail["loc"]
    is_missing = detail["type"] == "missing"
    set_at = loc[:-1] if is_missing else loc
    where = next((name for name, values in sources if _holds(values, set_at)), "the defaults")
    name = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in loc)
    name = name.removeprefix(".").replace("models[", "model[", 1)
    kind = type(detail["input"]).__name__
    match detail["type"]:
        case "extra_forbidden":
            problem = "unknown key"
        case "missing":
            problem = "is required"
        case "string_type" if "pricing" in loc:
            problem = (
                f'write the price as a string, such as "0.0000002", to keep it exact; got {kind}'
            )
        case _:
            message = detail["msg"]
            problem = f"{message[0].lower()}{message[1:]}, got {kind}"
    return f"{name} in {where}: {problem}"


def _holds(values: object, loc: Sequence[int | str]) -> bool:
    """Whether a source set this setting, or the table that lacks it."""
    for step in loc:
        try:
            values = values[step]  # type: ignore[index]  # anything that TOML or JSON can nest
        except (KeyError, IndexError, TypeError):
            return False
    return True
