"""Settings of this handler: `PROVIDER_RUNPOD_*`. What RunPod sets itself is the SDK's to read."""

from typing import Literal

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class RunPodSettings(BaseSettings):
    """How jobs are taken and answered."""

    model_config = SettingsConfigDict(
        env_prefix="PROVIDER_RUNPOD_", env_ignore_empty=True, frozen=True
    )

    concurrency: int | None = Field(
        None, ge=1, description="Jobs at a time; default: the first model's `max_num_seqs`."
    )
    stream_window_s: float = Field(
        0.1, ge=0, description="Streamed events are sent together for so long: each post costs."
    )
    stream_window_bytes: int = Field(
        16384, ge=1, description="So many bytes of events are sent before that."
    )
    progress_s: float = Field(
        15, ge=0, description="How often a job that does not stream says it runs; 0 is never."
    )
    log_level: Literal["DEBUG", "INFO", "WARN", "ERROR"] = Field(
        "INFO", description="Least level of the SDK's lines; `DEBUG` writes prompts and answers."
    )
