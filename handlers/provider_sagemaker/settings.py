"""Settings of this handler: `PROVIDER_SAGEMAKER_*`."""

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from provider_core import ConfigurationError

PREFIX = "PROVIDER_SAGEMAKER_"


class SageMakerSettings(BaseSettings):
    """How long SageMaker waits."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_ignore_empty=True, frozen=True)

    deadline_s: float = Field(
        60, gt=1, description="Of a whole answer; asynchronous endpoints wait up to 3600."
    )
    stream_deadline_s: float = Field(480, gt=1, description="Of a streamed answer.")


def read_settings() -> SageMakerSettings:
    """Read the environment.

    Raises:
        ConfigurationError: A value does not fit; names the variable.
    """
    try:
        return SageMakerSettings()
    except ValidationError as error:
        detail = error.errors(include_url=False, include_input=False)[0]
        name = f"{PREFIX}{detail['loc'][0]}".upper()
        raise ConfigurationError(f"{name}: {detail['msg'].lower()}") from None
