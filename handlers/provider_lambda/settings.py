"""Settings of this handler: `PROVIDER_LAMBDA_*`, and the variables that Lambda sets itself."""

from typing import Literal

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from provider_core import ConfigurationError


class LambdaSettings(BaseSettings):
    """How answers leave."""

    model_config = SettingsConfigDict(
        env_prefix="PROVIDER_LAMBDA_", env_ignore_empty=True, frozen=True
    )

    invoke_mode: Literal["response_stream", "buffered"] = Field(
        "response_stream", description="As the function URL's `InvokeMode`, or the API's."
    )


class LambdaEnvironment(BaseSettings):
    """What Lambda tells its runtime."""

    model_config = SettingsConfigDict(env_prefix="AWS_LAMBDA_", env_ignore_empty=True, frozen=True)

    runtime_api: str = Field(description="Host and port of the Runtime API.")
    max_concurrency: int = Field(1, ge=1, description="Invocations at a time; managed instances.")
    initialization_type: str = Field("on-demand", description="What sets limits to the start.")


def read_environment() -> LambdaEnvironment:
    """Read what Lambda set.

    Raises:
        ConfigurationError: This is no function of Lambda.
    """
    try:
        return LambdaEnvironment()
    except ValidationError:
        raise ConfigurationError(
            "platform lambda: AWS_LAMBDA_RUNTIME_API is not set, so this is no function of Lambda; "
            "elsewhere leave the platform out"
        ) from None
