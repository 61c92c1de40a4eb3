"""`provider.toml` as the settings take it."""

import tomllib
from pathlib import Path
from typing import Any

from provider_core.errors import ConfigurationError


def split_names(value: object) -> object:
    """The parts of a string between commas; everything else as it is."""
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return value


def read_settings_file(path: Path) -> dict[str, Any]:
    """Read the file; `[[model]]` becomes `models`, relative folders are relative to the file.

    Raises:
        ConfigurationError: It cannot be read, is not TOML, or holds a key that is ours.
    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"cannot read the configuration file {path}: {error}") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"{path} is not valid TOML: {error}") from error
    for reserved in {"config", "models"} & values.keys():
        raise ConfigurationError(f"{reserved} in {path}: unknown key")
    model = split_names(values.pop("model", ()))
    if isinstance(model, dict):
        raise ConfigurationError(f"model in {path}: write [[model]], in double brackets")
    if isinstance(model, list) and any(isinstance(item, dict) for item in model):
        values["models"] = [_resolve(item, path.parent) for item in model]
    elif model:
        items = model if isinstance(model, list | tuple) else [model]
        values["model"] = [_resolve(item, path.parent) for item in items]
    if "data_dir" in values:
        values["data_dir"] = _resolve(values["data_dir"], path.parent)
    journal = values.get("journal")
    if isinstance(journal, dict) and "dir" in journal:
        values["journal"] = {**journal, "dir": _resolve(journal["dir"], path.parent)}
    access = values.get("access")
    if isinstance(access, dict) and "keys_file" in access:
        values["access"] = {**access, "keys_file": _resolve(access["keys_file"], path.parent)}
    return values


def _resolve(value: object, folder: Path) -> object:
    """A folder named in the file, or a table's `source`, relative to the file; URIs stay."""
    if isinstance(value, dict) and "source" in value:
        return {**value, "source": _resolve(value["source"], folder)}
    return str(folder / value) if isinstance(value, str) and "://" not in value else value
