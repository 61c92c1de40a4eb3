"""Writes the package of a new plugin: one that works and is tested, to be filled."""

import re
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from string import Template
from typing import Literal

from provider_core.errors import ConfigurationError

Kind = Literal["backend", "engine"]
"""What it brings: a `ModelRunner` that the core batches for, or an `Engine` that does it itself."""

TEMPLATES = Path(__file__).parent / "plugin_templates"
NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")


def write_plugin(name: str, kind: Kind, parent: Path) -> Path:
    """Write a package into a new folder.

    Args:
        name: Of the plugin, as `--backend` will say it, e.g. `my-runtime`.
        kind: What it brings.
        parent: Where the folder `provider-NAME` is made.

    Returns:
        The new folder.

    Raises:
        ConfigurationError: The name is none or taken, the folder exists, or it cannot be written.
    """
    if NAME.fullmatch(name) is None:
        raise ConfigurationError(
            f"the name {name[:64]!r} must be lower-case words of letters and digits, joined by -"
        )
    distribution = f"provider-{name}"
    module = distribution.replace("-", "_")
    if find_spec(module) is not None:
        raise ConfigurationError(f"a package {module} is installed already; choose another name")
    words = {"name": name, "distribution": distribution, "module": module}
    folder = parent / distribution
    try:
        folder.mkdir(parents=True)
        (folder / "tests").mkdir()
        for path, template in _files(kind, module).items():
            text = Template(template.read_text(encoding="utf-8")).substitute(words)
            (folder / path).write_text(text, encoding="utf-8")
    except FileExistsError:
        raise ConfigurationError(f"{folder} exists already") from None
    except OSError as error:
        raise ConfigurationError(f"{folder} cannot be written: {error.strerror}") from error
    return folder


def _files(kind: Kind, module: str) -> Mapping[str, Path]:
    """The templates by the paths of what they become."""
    return {
        "pyproject.toml": TEMPLATES / "shared/pyproject.toml.txt",
        "README.md": TEMPLATES / "shared/README.md.txt",
        f"{module}.py": TEMPLATES / kind / "module.py.txt",
        f"tests/test_{module}.py": TEMPLATES / kind / "test_module.py.txt",
    }
