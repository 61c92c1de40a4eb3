"""Facts of the image of `infra/docker` that what deploys it relies on."""

import json
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
REFERENCE = "registry.example/provider:1"
"""What users replace by the name under which they have pushed it."""

DOCKERFILE = ROOT / "infra/docker/onnxruntime.Dockerfile"

_TEXT = DOCKERFILE.read_text(encoding="utf-8")


def entrypoint() -> list[str]:
    """What begins in it, before the arguments."""
    return list(json.loads(_last(r"ENTRYPOINT (.+)")))


def user_id() -> int:
    """Who serves in it."""
    return int(_last(r"USER (\d+)"))


def data_dir() -> str:
    """Where that user may write."""
    return _last(r"VOLUME (\S+)")


def _last(pattern: str) -> str:
    found: list[str] = re.findall(rf"^{pattern}$", _TEXT, re.MULTILINE)
    return found[-1]
