"""Output folders that are whole or not there: an interrupted export leaves nothing half-written."""

import fcntl
import os
import secrets
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from glob import escape
from pathlib import Path

from provider_core import ConfigurationError

SUFFIX = ".partial"
TOKEN_BYTES = 4  # of what tells the temporary folders of one name apart, in hexadecimal


@contextmanager
def staged_folder(
    out: Path, model_files: Sequence[str], companions: Sequence[str] = ()
) -> Iterator[Path]:
    """A temporary folder whose files move to `out` once the block has succeeded.

    If `out` is missing, the folder lies beside it and is renamed. Otherwise it lies in `out`, which
    may be a mount, and files of the same names are replaced: the old model goes first and the new
    one comes last, so that `out` never holds a model together with files of another.

    Its owner holds a lock on it while it lives. Those that nobody holds, of processes that were
    killed, are removed.

    Args:
        out: The folder to make or to add to.
        model_files: Of a model, the file first that the others are of no use without.
        companions: Further files of a model; those in `out` that the block did not write go, too.

    Raises:
        ConfigurationError: `out` is no folder, or cannot be written to.
    """
    out = out.absolute()
    if out.is_symlink() and not out.exists():
        raise ConfigurationError(f"{out} is a link to {out.readlink()}, which is not there")
    if out.exists() and not out.is_dir():
        raise ConfigurationError(f"{out} is a file, not a folder")
    exists = out.is_dir()
    parent = out if exists else out.parent
    _sweep(parent, out.name)
    try:
        staging, lock = _make_locked(parent, out.name)
    except OSError as error:
        raise ConfigurationError(
            f"a folder in {parent} cannot be made: {error.strerror}"
        ) from error
    try:
        yield staging
        if not exists:
            staging.rename(out)
            return
        for name in (*model_files, *companions):
            (out / name).unlink(missing_ok=True)
        for path in sorted(staging.iterdir(), key=lambda path: path.name == model_files[0]):
            path.replace(out / path.name)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
        os.close(lock)


def _make_locked(parent: Path, name: str) -> tuple[Path, int]:
    """Make a folder of a name of its own; return it and the descriptor that holds its lock."""
    while True:
        staging = parent / f".{name}.{secrets.token_hex(TOKEN_BYTES)}{SUFFIX}"
        staging.mkdir(parents=True)
        lock = os.open(staging, os.O_RDONLY)
        with suppress(OSError):  # a file system without locks: nobody sweeps there, either
            fcntl.flock(lock, fcntl.LOCK_EX)
        if staging.is_dir():
            return staging, lock
        os.close(lock)  # swept before it was locked


def _sweep(parent: Path, name: str) -> None:
    """Remove the folders of this name that no process holds."""
    token = 2 * TOKEN_BYTES * "[0-9a-f]"
    for staging in parent.glob(f".{escape(name)}.{token}{SUFFIX}"):
        try:
            lock = os.open(staging, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except OSError:  # gone since, or no folder of ours
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:  # held, or not to be locked here
            continue
        else:
            shutil.rmtree(staging, ignore_errors=True)
        finally:
            os.close(lock)
