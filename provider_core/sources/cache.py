"""Where fetched models are kept: a folder per source, in it a folder per version.

::

    models/hf-tiny-1f0c5a2e/            the source, by name and digest of its URI
        .lock                           held while something is fetched
        9b1d…/                          a version: the model's files and nothing else
        9b1d….parts/                    what has not come yet; gone when all is there

Versions are named by what the source lists, so another one never touches the files that a running
server has mapped.
"""

import errno
import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

import structlog

from provider_core.sources.remote import RemoteFile

log = structlog.get_logger()

READ_ONLY = frozenset({errno.EROFS, errno.EACCES, errno.EPERM})
"""What writing fails with where a copy came with an image or a volume that others fill."""


@dataclass(frozen=True, slots=True)
class Version:
    """One version of a model, maybe not all of it.

    Attributes:
        folder: Its files.
        parts: Its unfinished files, by the same paths.
    """

    folder: Path
    parts: Path

    @property
    def is_whole(self) -> bool:
        """Whether all files are there."""
        return self.folder.is_dir() and not self.parts.exists()

    def begin(self) -> None:
        """Make the folders; from now on it is not whole."""
        self.parts.mkdir(parents=True, exist_ok=True)
        self.folder.mkdir(exist_ok=True)

    def finish(self) -> None:
        """Say that it is whole."""
        shutil.rmtree(self.parts)


class SourceCache:
    """What is kept of one source.

    Args:
        cache_dir: Of all sources.
        uri: The source's.
    """

    def __init__(self, cache_dir: Path, uri: str) -> None:
        url = urlsplit(uri)
        last = unquote(url.path or url.netloc).rstrip("/").rpartition("/")[2]
        name = "".join(c if c.isalnum() or c in "._-" else "-" for c in last)[:80]
        digest = hashlib.sha256(uri.encode()).hexdigest()[:8]
        self.root = cache_dir / f"{url.scheme}-{name}-{digest}"
        self._uri = uri

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Let one process fetch while the others wait; nobody waits on a read-only disk.

        Raises:
            OSError: The folder cannot be made.
        """
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            fd = os.open(self.root / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            if error.errno not in READ_ONLY:
                raise
            yield  # a copy that came with the image can be served, and nothing be fetched
            return
        try:
            self._lock(fd)
            yield
        finally:
            os.close(fd)  # and with it the lock, as when the process dies

    def _lock(self, fd: int) -> None:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log.info("model.fetch_waits", source=self._uri, reason="another process fetches it")
            fcntl.flock(fd, fcntl.LOCK_EX)

    def version(self, files: Sequence[RemoteFile]) -> Version:
        """The version that consists of these files."""
        listed = sorted((f.path, f.size_bytes, f.sha256 or f.version) for f in files)
        name = hashlib.sha256(repr(listed).encode()).hexdigest()[:16]
        return self._version(name)

    def latest(self) -> Path | None:
        """The whole version that was used last."""
        if not self.root.is_dir():
            return None
        names = [path.name for path in self.root.iterdir() if path.is_dir()]
        versions = [self._version(name) for name in names if not name.endswith(".parts")]
        whole = [version.folder for version in versions if version.is_whole]
        return max(whole, key=lambda folder: folder.stat().st_mtime_ns, default=None)

    def use(self, version: Version) -> Path:
        """Note that a version is the one that is used now.

        Returns:
            Its folder.
        """
        with suppress(OSError):  # a read-only disk
            os.utime(version.folder)
        return version.folder

    def _version(self, name: str) -> Version:
        return Version(self.root / name, self.root / f"{name}.parts")
