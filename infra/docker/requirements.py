"""Print what the project and the extras of `EXTRAS` need, one requirement a line.

An image installs these before the project itself, so that they are a layer that seldom changes.
"""

import os
import re
import tomllib
from pathlib import Path

NAME = re.compile(r"provider-core\[(.+)\]")


def main() -> None:
    """Read `pyproject.toml` of the current folder."""
    project = tomllib.loads(Path("pyproject.toml").read_text())["project"]
    left = os.environ["EXTRAS"].split(",")
    requirements = list(project["dependencies"])
    while left:
        for requirement in project["optional-dependencies"][left.pop()]:
            if own := NAME.fullmatch(requirement):
                left += own[1].split(",")
            else:
                requirements.append(requirement)
    print("\n".join(dict.fromkeys(requirements)))


if __name__ == "__main__":
    main()
