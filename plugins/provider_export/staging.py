"""Output folders that are whole or not there: an interrupted export leaves nothing half-written."""

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from provider_core import ConfigurationError


@contextmanager
def staged_folder(out: Path, model_files: Sequence[str]) -> Iterator[Path]:
    """A temporary folder whose files move to `out` once the block has succeeded.

    If `out` is missing, the folder lies beside it and is renamed. Otherwise it lies in `out`, which
    may be a mount, and files of the same names are replaced: the old model goes first and the new
    one comes last, so that `out` never holds a model together with files of another.

    Args:
        out: The folder to make or to add to.
        model_files: Of a model, the file first that the others are of no use without.

    Raises:
        ConfigurationError: `out` is no folder, or cannot be written to.
    """
    out = out.absolute()
    if out.exists() and not out.is_dir():
        raise ConfigurationError(f"{out} is a file, not a folder")
    exists = out.is_dir()
    staging = (out if exists else out.parent) / f".{out.name}.{os.getpid()}.partial"
    shutil.rmtree(staging, ignore_errors=True)  # of a killed process that had this number
    try:
        staging.mkdir(parents=True)
    except OSError as error:
        raise ConfigurationError(f"{staging} cannot be made: {error.strerror}") from error
    try:
        yield staging
        if not exists:
            staging.rename(out)
            return
        for name in model_files:
            (out / name).unlink(missing_ok=True)
        for path in sorted(staging.iterdir(), key=lambda path: path.name == model_files[0]):
            path.replace(out / path.name)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
