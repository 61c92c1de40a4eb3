"""What the application asks of Ray: `python built.py`, in the environment that has Ray.

Reads a list of arguments of `make_app` from standard input, and writes the options of both
deployments for each.
"""

import json
import sys
from typing import Any

from ray import serve

from provider_ray import application


def main() -> None:
    """Build each, and run none."""
    builds = []
    for arguments in json.load(sys.stdin):
        seen: dict[str, dict[str, Any]] = {}
        serve.deployment = _noting(seen, serve.deployment)
        application.make_app(arguments)
        serve.deployment = serve.deployment.__wrapped__
        builds.append(seen)
    json.dump(builds, sys.stdout, default=lambda value: value.dict())


def _noting(seen: dict[str, dict[str, Any]], deployment: Any) -> Any:
    def noted(target: type, **options: Any) -> Any:
        made = deployment(target, **options)
        seen[options["name"]] = options
        return made

    noted.__wrapped__ = deployment  # type: ignore[attr-defined]  # as functools does
    return noted


if __name__ == "__main__":
    main()
