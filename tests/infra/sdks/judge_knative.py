"""Reads a service with the classes that are generated from Knative's own definition of it."""

from pathlib import Path
from typing import Any

import yaml
from cloudcoil.models.knative_serving.serving.v1 import Service
from judging import judge


def read(path: Path) -> dict[str, Any]:
    """Its fields, of which Knative must know each."""
    document: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    Service.model_validate(document, extra="forbid")
    return document


if __name__ == "__main__":
    judge(read)
