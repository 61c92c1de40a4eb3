"""Files that a model names, found only where a model may have them: as plain files of its folder.

What a folder names comes from whoever made it. A name that leaves the folder, or a link that does,
would make the server read, and show, what was never meant for it.
"""

import os
from pathlib import Path, PurePosixPath, PureWindowsPath

from provider_core.errors import ConfigurationError


def resolve_beneath(folder: Path, name: str, *, what: str) -> Path:
    """A file inside `folder`, reached without links but those of huggingface_hub's cache.

    Raises:
        ConfigurationError: The name is absolute, climbs, goes through a link, or is no file.
    """
    parts = PurePosixPath(name).parts
    if not name or PurePosixPath(name).is_absolute() or PureWindowsPath(name).is_absolute():
        raise ConfigurationError(f"{what} {name!r} must be a path inside the model's folder")
    if ".." in parts or "\\" in name or "\0" in name or PureWindowsPath(name).drive:
        raise ConfigurationError(f"{what} {name!r} must not leave the model's folder")
    path = folder.joinpath(*parts)
    beneath = Path(os.path.realpath(folder)).joinpath(*parts)
    if Path(os.path.realpath(path)) != beneath and not _is_cached_blob(path, beneath):
        raise ConfigurationError(
            f"{what} {name!r} is a link; copy the model into a folder of plain files"
        )
    if not path.is_file():
        raise ConfigurationError(f"{what} {name!r} is not a file in {folder}")
    return path


def find_data_file(folder: Path, beside: Path, location: str, *, what: str) -> Path:
    """A file of weights outside the model's file.

    Args:
        folder: The model's.
        beside: Where the model's file lies, to which the location is relative.
        location: As the model's file says it.
        what: Of what it is, for messages.

    Raises:
        ConfigurationError: It leaves the folder, is a link, symbolic or hard, or is no file.
    """
    target = resolve_beneath(beside, location, what=what)
    if not target.is_relative_to(folder):
        raise ConfigurationError(f"{what} {location!r} must not leave the model's folder")
    if target.stat().st_nlink != 1:
        raise ConfigurationError(f"{what} {location!r} is a hard link; copy the file")
    return target


def _is_cached_blob(path: Path, beneath: Path) -> bool:
    """Whether a link of huggingface_hub's cache leads to the blobs of its own repository.

    `models--org--name/snapshots/<commit>/` holds links to files of `models--org--name/blobs/`. The
    runtime follows them as long as a model and its weights are in one folder in the end.

    Args:
        path: As it was asked for.
        beneath: Where it is, if no part of its folder is a link.
    """
    if Path(os.path.realpath(path.parent)) != beneath.parent:
        return False
    blobs = Path(os.path.realpath(path)).parent
    return any(
        above.name == "snapshots"
        and above.parent.name.startswith("models--")
        and above.parent / "blobs" == blobs
        for above in beneath.parents
    )
