"""Compiled kernels on disk: what is read back, and what is never read."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from provider_tensorrt.kernel_cache import MAX_FILES, KernelCache

ENGINE, OTHER_ENGINE = "ab" * 32, "cd" * 32
HERE, ELSEWHERE = "a GPU, its driver, a library", "a GPU, its driver, the next library"
KERNELS = bytes(range(256)) * 16


@pytest.fixture
def cache(tmp_path: Path) -> KernelCache:
    """One that holds kernels."""
    cache = KernelCache(tmp_path / "engines" / "kernels", ENGINE)
    cache.write(HERE, KERNELS)
    return cache


def only_file(cache: KernelCache) -> Path:
    """The one that is there."""
    (path,) = cache.folder.iterdir()
    return path


def test_what_was_written_is_read(cache: KernelCache) -> None:
    """By another start, in the same environment."""
    assert KernelCache(cache.folder, ENGINE).read(HERE) == KERNELS


def test_nobody_else_may_write_there(tmp_path: Path) -> None:
    """Whatever the umask is."""
    before = os.umask(0)
    try:
        cache = KernelCache(tmp_path / "kernels", ENGINE)
        cache.write(HERE, KERNELS)
    finally:
        os.umask(before)

    assert cache.read(HERE) == KERNELS
    assert (cache.folder.stat().st_mode & 0o777, only_file(cache).stat().st_mode & 0o777) == (
        0o755,
        0o644,
    )


def test_nothing_is_no_error(tmp_path: Path) -> None:
    """Neither a folder that is missing nor an empty one."""
    cache = KernelCache(tmp_path / "kernels", ENGINE)
    with capture_logs() as logs:
        assert cache.read(HERE) is None
        cache.folder.mkdir()
        assert cache.read(HERE) is None
    assert logs == []


@pytest.mark.parametrize(("engine", "environment"), [(ENGINE, ELSEWHERE), (OTHER_ENGINE, HERE)])
def test_kernels_of_others_are_not_found(cache: KernelCache, engine: str, environment: str) -> None:
    """Compiled of another engine, or for another environment."""
    assert KernelCache(cache.folder, engine).read(environment) is None


def cut_off(path: Path) -> None:
    """As by a full disk."""
    path.write_bytes(path.read_bytes()[:-1])


def damage(path: Path) -> None:
    """One bit in the middle."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def rename_another(path: Path) -> None:
    """Kernels of another engine, whole, under this one's name."""
    KernelCache(path.parent, OTHER_ENGINE).write(HERE, b"others")
    (other,) = set(path.parent.iterdir()) - {path}
    other.rename(path)


def let_all_write(path: Path) -> None:
    """By its mode."""
    path.chmod(0o666)


def let_all_write_to_the_folder(path: Path) -> None:
    """And exchange the file."""
    path.parent.chmod(0o777)


def link(path: Path) -> None:
    """A symbolic link to the same bytes."""
    path.symlink_to(path.rename(path.parent.parent / "moved"))


def link_hard(path: Path) -> None:
    """A second name."""
    (path.parent.parent / "second").hardlink_to(path)


def make_pipe(path: Path) -> None:
    """Nobody writes to it."""
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize(
    "change",
    [
        cut_off,
        damage,
        rename_another,
        let_all_write,
        let_all_write_to_the_folder,
        link,
        link_hard,
        make_pipe,
    ],
)
def test_what_is_not_as_it_was_written_is_dropped(
    cache: KernelCache, change: Callable[[Path], None]
) -> None:
    """With a line that says why."""
    change(only_file(cache))

    with capture_logs() as logs:
        assert cache.read(HERE) is None

    assert [line["event"] for line in logs] == ["kernels.dropped"]


@pytest.mark.parametrize("change", [cut_off, damage, rename_another, let_all_write, link])
def test_what_was_dropped_is_written_anew(
    cache: KernelCache, change: Callable[[Path], None]
) -> None:
    """In the same place."""
    change(only_file(cache))

    cache.write(HERE, KERNELS)

    assert cache.read(HERE) == KERNELS


def test_files_of_somebody_else_are_dropped(
    cache: KernelCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever can write to a folder that is shared leaves no code for us."""
    if os.geteuid() == 0:
        os.chown(only_file(cache), 65534, 65534)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)

    assert cache.read(HERE) is None


def test_a_folder_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    """As in an image that is read-only: a file stands where the folder would be."""
    (tmp_path / "kernels").touch()
    cache = KernelCache(tmp_path / "kernels", ENGINE)

    with capture_logs() as logs:
        cache.write(HERE, KERNELS)

    assert [line["event"] for line in logs] == ["kernels.not_kept"]


def test_a_write_that_fails_leaves_what_was_there(
    cache: KernelCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And no half of the new one."""

    def fail(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with capture_logs() as logs:
        cache.write(HERE, b"new")

    assert [line["reason"] for line in logs] == ["No space left on device"]
    assert cache.read(HERE) == KERNELS
    assert len(list(cache.folder.iterdir())) == 1


def test_old_files_go(cache: KernelCache) -> None:
    """The newest stay."""
    os.utime(only_file(cache), (1, 1))
    for number in range(MAX_FILES):
        cache.write(f"environment {number}", KERNELS)

    assert cache.read(HERE) is None
    assert len(list(cache.folder.iterdir())) == MAX_FILES
    assert cache.read(f"environment {MAX_FILES - 1}") == KERNELS
