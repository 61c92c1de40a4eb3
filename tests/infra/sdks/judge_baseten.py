"""Reads a configuration with truss, as strictly as `truss push` does."""

from pathlib import Path
from typing import Any

from judging import enter_package, judge

enter_package("truss")

from truss.base.truss_config import TrussConfig  # noqa: E402 - only now


def read(path: Path) -> dict[str, Any]:
    """What would be pushed."""
    config = TrussConfig.from_yaml(path)
    config.validate_forbid_extra()
    declared: dict[str, Any] = config.to_dict(verbose=True)
    return declared


if __name__ == "__main__":
    judge(read)
