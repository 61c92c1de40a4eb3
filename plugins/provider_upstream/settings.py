"""Settings of this backend: `PROVIDER_UPSTREAM_*`, or one model's `options` over them."""

from typing import Literal

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

Dialect = Literal["vllm", "openai"]
"""Which fields a request may have: OpenAI's own, or those and vLLM's."""


class UpstreamSettings(BaseSettings):
    """Where the upstream is and what it understands."""

    model_config = SettingsConfigDict(
        env_prefix="PROVIDER_UPSTREAM_", env_ignore_empty=True, extra="forbid", frozen=True
    )

    base_url: str = Field(
        pattern=r"^https?://[^/?#@\s]+(/[^?#\s]*)?$",
        description="Of its API, `/v1` included, e.g. `http://10.0.0.7:8000/v1`.",
    )
    api_key: SecretStr | None = Field(None, description="Sent to it as a bearer token.")
    model: str | None = Field(
        None, description="Its name for the model; needed only if it serves several."
    )
    dialect: Dialect = Field(
        "vllm", description="`openai` for servers that refuse fields which OpenAI does not have."
    )
    start_timeout_s: float = Field(
        600.0, ge=0, description="How long its own start is waited for, in seconds."
    )
    connect_timeout_s: float = Field(
        5.0,
        gt=0,
        description="For a connection to it, and for the answer to a probe, in seconds.",
    )
    read_timeout_s: float = Field(
        300.0, gt=0, description="Longest silence within an answer, in seconds."
    )

    @field_validator("api_key")
    @classmethod
    def _check_key(cls, key: SecretStr | None) -> SecretStr | None:
        """Take the line's end off a key that was read from a file; it goes into a header."""
        if key is None:
            return None
        text = key.get_secret_value().strip()
        if not text.isascii() or not text.isprintable():
            raise ValueError("may only hold characters that can be printed, of ASCII")
        return SecretStr(text)

    @property
    def headers(self) -> dict[str, str]:
        """What every request to it carries."""
        # Compressed, a stream would wait in the compressor of whatever is in between.
        headers = {"Content-Type": "application/json", "Accept-Encoding": "identity"}
        if self.api_key is not None:
            headers["Authorization"] = f"Bearer {self.api_key.get_secret_value()}"
        return headers

    def url(self, path: str) -> str:
        """The address of one of its resources."""
        return f"{self.base_url.rstrip('/')}/{path}"
