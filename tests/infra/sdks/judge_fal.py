"""Reads an app of a `pyproject.toml` as `fal deploy NAME` does."""

import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fal.api import FalServerlessHost
from fal.cli._utils import get_app_data_from_toml
from fal.project import find_project_root
from fal.utils import load_function_from
from judging import judge


def read(path: Path) -> dict[str, Any]:
    """What would be registered."""
    os.chdir(path.parent)
    find_project_root.cache_clear()  # it remembers the first folder
    app = get_app_data_from_toml("provider")
    load_function_from(
        FalServerlessHost(), None, options=app.options, app_name=app.name, app_auth=app.auth
    )
    host = dict(app.options.host)
    host["health_check_config"] = asdict(host["health_check_config"])
    return {
        "name": app.name,
        "auth": app.auth,
        **host,
        **app.options.gateway,
        **app.options.environment,
    }


if __name__ == "__main__":
    judge(read)
