"""Settings of this backend: `PROVIDER_GENAI_*`, or one model's `options` over them."""

from typing import Literal

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class GenaiSettings(BaseSettings):
    """How the runtime runs."""

    model_config = SettingsConfigDict(
        env_prefix="PROVIDER_GENAI_", env_ignore_empty=True, extra="forbid", frozen=True
    )

    provider: Literal["cpu", "cuda", "dml", "webgpu"] | None = Field(
        None, description="Where the model runs; default: as its genai_config.json says."
    )
    intra_op_num_threads: int | None = Field(
        None, ge=1, description="Threads of one step; default: as its genai_config.json says."
    )
