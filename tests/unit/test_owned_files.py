"""Files that are used only if nobody else can have written them."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from provider_core.owned_files import (
    check_owned_file,
    check_owned_folder,
    make_owned_folder,
    open_owned_file,
)

STRANGER = 65534


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """One of ours, with a file."""
    folder = tmp_path / "cache" / "kernels"
    make_owned_folder(folder)
    (folder / "file").write_text("code")
    (folder / "file").chmod(0o644)
    return folder


def read(path: Path) -> str:
    """As a server reads what may be somebody else's."""
    with open(path, opener=open_owned_file, encoding="utf-8") as file:
        return file.read()


def test_what_is_ours_is_used(folder: Path) -> None:
    """And made only once."""
    check_owned_folder(folder)
    check_owned_file(folder / "file")
    assert read(folder / "file") == "code"
    make_owned_folder(folder)
    assert read(folder / "file") == "code"


@pytest.mark.parametrize("umask", [0, 0o777])
def test_a_folder_is_as_it_should_be_whatever_the_umask(tmp_path: Path, umask: int) -> None:
    """Or nobody could use it, or everybody."""
    before = os.umask(umask)
    try:
        make_owned_folder(tmp_path / "kernels")
    finally:
        os.umask(before)
    assert (tmp_path / "kernels").stat().st_mode & 0o777 == 0o755


def link(path: Path) -> None:
    """Somewhere else, and a symbolic link there."""
    path.symlink_to(path.rename(path.parent.parent / "moved"))


def make_pipe(path: Path) -> None:
    """Nobody writes to it."""
    path.unlink()
    os.mkfifo(path)


def make_folder(path: Path) -> None:
    """In the file's place."""
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (link, "is a link or no file of its kind"),
        (make_pipe, "is a link or no file of its kind"),
        (make_folder, "is a link or no file of its kind"),
        (lambda path: (path.parent.parent / "second").hardlink_to(path), "is a hard link"),
        (lambda path: path.chmod(0o664), "can be written by others"),
        (lambda path: path.chmod(0o646), "can be written by others"),
    ],
)
def test_a_file_that_others_could_write_is_refused(
    folder: Path, change: Callable[[Path], None], reason: str
) -> None:
    """By its name, before it is read."""
    change(folder / "file")
    with pytest.raises(PermissionError, match=f"^file {reason}$"):
        check_owned_file(folder / "file")
    with pytest.raises(OSError, match=reason if change is not link else "symbolic links"):
        read(folder / "file")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (link, "is a link or no file of its kind"),
        (lambda path: path.chmod(0o775), "can be written by others"),
        (lambda path: path.chmod(0o757), "can be written by others"),
    ],
)
def test_a_folder_that_others_could_write_to_is_refused(
    folder: Path, change: Callable[[Path], None], reason: str
) -> None:
    """Somebody could exchange what is in it. It is left as it is."""
    change(folder)
    for check in (check_owned_folder, make_owned_folder):
        with pytest.raises(PermissionError, match=f"^kernels {reason}$"):
            check(folder)


def test_what_is_somebody_elses_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """But not what is root's, who can do anything: images are built by root and run by others."""
    owner = folder.stat().st_uid
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    if owner == 0:
        assert read(folder / "file") == "code"
        os.chown(folder / "file", STRANGER, STRANGER)
        os.chown(folder, STRANGER, STRANGER)
    with pytest.raises(PermissionError, match=r"^kernels belongs to somebody else$"):
        check_owned_folder(folder)
    with pytest.raises(PermissionError, match=r"^file belongs to somebody else$"):
        read(folder / "file")


def test_what_is_missing_is_not_refused(folder: Path) -> None:
    """It is missing, which is another answer."""
    with pytest.raises(FileNotFoundError):
        check_owned_file(folder / "other")
    with pytest.raises(FileNotFoundError):
        check_owned_folder(folder / "other")
    with pytest.raises(FileNotFoundError):
        read(folder / "other")


def test_a_file_where_the_folder_would_be_is_left_there(folder: Path) -> None:
    """It is somebody's."""
    with pytest.raises(FileExistsError):
        make_owned_folder(folder / "file")
    assert (folder / "file").read_text() == "code"
