"""Files that a server keeps for its next start, where others may be able to write.

What lies in such a cache may be code: it is used only if it and its folder belong to us (or to
root, who builds images) and nobody else can write to them. Links lead to what others own, and a
hard link can be written by another name.
"""

import os
import stat
from pathlib import Path

_NO_LINK_AND_NO_WAITING = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
"""A pipe would wait for who writes into it. Windows has neither."""


def make_owned_folder(folder: Path) -> None:
    """Make a folder, if it is not there, to which nobody else can write, whatever the umask.

    Raises:
        OSError: It cannot be made, or it is there and not as `check_owned_folder` wants it.
    """
    if not folder.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o755)
    check_owned_folder(folder)


def check_owned_folder(folder: Path) -> None:
    """Refuse links, what is no folder, other people's, and what others may write to.

    Raises:
        PermissionError: It is one of these.
        OSError: It is not there.
    """
    _check(folder.name, folder.lstat(), stat.S_IFDIR)


def check_owned_file(path: Path) -> None:
    """Refuse links, what is no plain file, other people's, and what others may write to.

    Raises:
        PermissionError: It is one of these.
        OSError: It is not there.
    """
    _check(path.name, path.lstat(), stat.S_IFREG)


def open_owned_file(path: str, flags: int) -> int:
    """An opener, as `open` takes one, of what `check_owned_file` lets pass.

    Raises:
        PermissionError: It does not.
        OSError: It is a symbolic link, or cannot be opened.
    """
    descriptor = os.open(path, flags | _NO_LINK_AND_NO_WAITING)
    try:
        _check(Path(path).name, os.fstat(descriptor), stat.S_IFREG)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _check(name: str, status: os.stat_result, kind: int) -> None:
    if stat.S_IFMT(status.st_mode) != kind:
        raise PermissionError(f"{name} is a link or no file of its kind")
    if kind == stat.S_IFREG and status.st_nlink != 1:
        raise PermissionError(f"{name} is a hard link")
    if hasattr(os, "geteuid") and status.st_uid not in {os.geteuid(), 0}:
        raise PermissionError(f"{name} belongs to somebody else")
    if os.name == "posix" and status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise PermissionError(f"{name} can be written by others")
