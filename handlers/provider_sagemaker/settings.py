"""Settings of this handler: `PROVIDER_SAGEMAKER_*`."""

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class SageMakerSettings(BaseSettings):
    """How long SageMaker waits."""

    model_config = SettingsConfigDict(
        env_prefix="PROVIDER_SAGEMAKER_", env_ignore_empty=True, frozen=True
    )

    deadline_s: float = Field(
        60, gt=1, description="Of a whole answer; asynchronous endpoints wait up to 3600."
    )
    stream_deadline_s: float = Field(480, gt=1, description="Of a streamed answer.")
