"""Settings of this backend: `PROVIDER_TENSORRT_*`, or one model's `options` over them."""

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from provider_tensorrt.library import LibraryName


def _split(value: object) -> object:
    """Text into the parts between its commas; anything else as it is."""
    return [part for part in value.split(",") if part] if isinstance(value, str) else value


def _normalise_digest(text: str) -> str:
    digest = text.strip().lower().removeprefix("sha256:")
    if not re.fullmatch("[0-9a-f]{64}", digest):
        raise ValueError(f"{text!r} is no SHA-256 digest, which has 64 hexadecimal digits")
    return digest


Digest = Annotated[str, AfterValidator(_normalise_digest)]


class TensorRtSettings(BaseSettings):
    """How engines are found and run."""

    model_config = SettingsConfigDict(
        env_prefix="PROVIDER_TENSORRT_", env_ignore_empty=True, extra="forbid", frozen=True
    )

    device: Literal["cuda", "host"] = Field(
        "cuda",
        description="Where the model runs; `host` executes the exported graph on the CPU, for "
        "trying a deployment without a GPU.",
    )
    device_id: int = Field(0, ge=0, description="Which GPU.")
    library: LibraryName | None = Field(
        None, description="Which library, where both are installed; default: `tensorrt`."
    )
    engine_dir: Path | None = Field(
        None, description="Where engines are; default: `engines` in the model's folder."
    )
    trusted_engines: Annotated[tuple[Digest, ...] | None, NoDecode, BeforeValidator(_split)] = (
        Field(
            None,
            description="SHA-256 digests of the engines that may be opened, comma-separated; "
            "default: those of the folder's manifest.",
        )
    )
    cuda_graphs: bool = Field(
        default=True, description="Replay decode steps as CUDA graphs, one for each shape."
    )
    memory_reserve_mib: int = Field(
        512, ge=0, description="Memory left free when slots are allocated."
    )
