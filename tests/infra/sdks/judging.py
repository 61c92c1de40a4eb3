"""What every judge does, in the environment of the package whose verdict it asks for."""

import importlib.util
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any


def judge(read: Callable[[Path], dict[str, Any]]) -> None:
    """Write a line of JSON, a verdict for each file of the command line, and end the process.

    Args:
        read: Has the package read one file, which it may refuse by raising anything, and says what
            the file declares.
    """
    verdicts: list[dict[str, Any]] = []
    for name in sys.argv[1:]:
        try:
            verdicts.append({"declared": read(Path(name))})
        except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever the package raises
            verdicts.append({"refused": f"{type(error).__name__}: {error}"})
    sys.stdout.write(f"\n{json.dumps(verdicts)}\n")
    sys.stdout.flush()
    os._exit(0)  # some clients keep trying to reach their platform, and would be waited for


def enter_package(name: str) -> None:
    """Let modules of a package be imported without what its `__init__` imports."""
    spec = importlib.util.find_spec(name)
    if spec is None or spec.submodule_search_locations is None:
        raise ModuleNotFoundError(name)
    package = ModuleType(name)
    package.__path__ = spec.submodule_search_locations
    sys.modules[name] = package
