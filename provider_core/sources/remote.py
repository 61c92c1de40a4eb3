"""What a source of models is: files with names and sizes, and their bytes by range."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Protocol

from provider_core.errors import ConfigurationError

MAX_FILES = 1000
"""More than any model has; a bucket that was named in place of a folder has more."""


class SourceUnavailable(Exception):
    """A source does not answer, or not as it should; trying again may help.

    The message is for people and holds no secret, such as the query of a signed address.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteFile:
    """One file of a model's folder.

    Attributes:
        path: Relative to the folder, parted by `/`.
        version: What a server calls these bytes, such as an ETag; other bytes have another.
        sha256: Of its content, as 64 hexadecimal digits, if the source gives it.
    """

    path: str
    size_bytes: int
    version: str = ""
    sha256: str | None = None


class RemoteFolder(Protocol):
    """A model's folder somewhere else. `read` is called from several threads at once."""

    @property
    def uri(self) -> str:
        """Its name, for people and for the cache: the same at each start, with no secret in it."""
        ...

    def list_files(self) -> Sequence[RemoteFile]:
        """Say what is there now.

        Raises:
            SourceUnavailable: It cannot be said now.
            ConfigurationError: It can never be said.
        """
        ...

    def read(self, file: RemoteFile, start: int, end: int) -> Iterator[bytes | memoryview]:
        """Read a range of a file, in pieces as they come; fewer bytes than asked for are no error.

        Args:
            file: One of `list_files`.
            start: First byte.
            end: Behind the last byte.

        Raises:
            SourceUnavailable: It cannot be read now.
            ConfigurationError: It cannot be read at all, or is not what was listed any more.
        """
        ...


class FetchProgress(Protocol):
    """Hears how far a model has come; nothing is said of one that is here already."""

    def advance(self, num_bytes: int, total_bytes: int) -> None:
        """Hear how many bytes of how many are here. Called often, from any thread, one at a time.

        Less than before means that a file came damaged.
        """
        ...

    def small_files_ready(self, folder: Path) -> None:
        """Hear that all but the weights is in the folder, which will be the model's.

        Called once, on the thread that fetches. What it raises ends the fetch.
        """
        ...


def check_paths(paths: Collection[str], uri: str) -> None:
    """Refuse a listing that is no model's: it is data from strangers.

    Args:
        paths: Of the files.
        uri: Of what lists them, for the error.

    Raises:
        ConfigurationError: There are none, too many, or one that is no place inside a folder.
    """
    if not paths:
        raise ConfigurationError(f"{uri} holds no files")
    if len(paths) > MAX_FILES:
        raise ConfigurationError(f"{uri} holds more than {MAX_FILES} files; name a folder")
    for path in paths:
        parts = PurePosixPath(path).parts
        is_plain = "/".join(parts) == path and not {"/", ".."} & set(parts)
        if not path or not is_plain or not path.isprintable() or "\\" in path:
            raise ConfigurationError(
                f"{uri} holds a file named {path!r}, which is no path in a folder"
            )
