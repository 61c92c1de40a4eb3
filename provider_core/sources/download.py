"""The files of a folder, in ranges over several connections; what is there is not fetched again."""

import hashlib
import shutil
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor, as_completed
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from threading import Event, Lock

import structlog

from provider_core.errors import ConfigurationError
from provider_core.sources.cache import Version
from provider_core.sources.part_file import PartFile
from provider_core.sources.remote import (
    FetchProgress,
    RemoteFile,
    RemoteFolder,
    SourceUnavailable,
)
from provider_core.sources.retries import retrying

log = structlog.get_logger()

RANGE_BYTES = 16 * 2**20
"""Large beside a request's round trip, small beside what a retry may waste."""

NUM_CONNECTIONS = 8
"""Object stores give some 100 MB/s to each connection."""

MIN_BYTES_PER_S = 16 * 1024
PATIENCE_S = 30.0
"""A connection that is slower than that after so long is given up for another."""

_NUM_DOWNLOADS = 3  # of a file that comes damaged
_TEXT_SUFFIXES = {".json", ".jinja", ".txt", ".model"}  # what is read before the weights are


def is_weights(file: RemoteFile) -> bool:
    """Whether a file is neither configuration nor tokenizer nor template."""
    return PurePosixPath(file.path).suffix not in _TEXT_SUFFIXES


class _Stopped(Exception):
    """Another range has failed for good."""


@dataclass(slots=True)
class _Arrival:
    """A file on its way.

    Attributes:
        num_awaited: Ranges that have been asked for and have not come.
        digest: Of its first ranges, as they come.
        num_hashed: Ranges in it.
    """

    file: RemoteFile
    part: PartFile
    num_awaited: int = 0
    digest: "hashlib._Hash" = field(default_factory=hashlib.sha256)
    num_hashed: int = 0

    def hash_what_came(self) -> None:
        """Take the ranges that follow those before into the checksum."""
        while self.file.sha256 is not None and self.part.has(self.num_hashed):
            self.digest.update(self.part.read(self.num_hashed))
            self.num_hashed += 1

    @property
    def is_damaged(self) -> bool:
        """Whether all of it is there and is not what it should be."""
        return self.file.sha256 not in {None, self.digest.hexdigest()}

    def begin_anew(self) -> None:
        """Forget what came."""
        self.part.reset()
        self.digest, self.num_hashed = hashlib.sha256(), 0


class Download:
    """One download of a version.

    Args:
        source: Read from.
        files: All of the version.
        version: Where they go.
        progress: Hears of it.
    """

    def __init__(
        self,
        source: RemoteFolder,
        files: Sequence[RemoteFile],
        version: Version,
        progress: FetchProgress,
    ) -> None:
        self._source = source
        self._files = sorted(files, key=is_weights)
        self._version = version
        self._progress = progress
        self._total_bytes = sum(file.size_bytes for file in files)
        self._num_bytes = 0
        self._lock = Lock()
        self._stop = Event()
        self._small = {file.path for file in files if not is_weights(file)}

    def run(self) -> None:
        """Fetch what is not there.

        Raises:
            SourceUnavailable: The source went away, for longer than is waited for.
            ConfigurationError: The disk is too small, or a file comes damaged each time.
            OSError: The disk fails.
        """
        with ExitStack() as parts:
            arrivals = [
                _Arrival(file, parts.enter_context(self._part(file)))
                for file in self._files
                if not self._is_here(file)
            ]
            self._small &= {arrival.file.path for arrival in arrivals}
            self._check_room(arrivals)
            if not self._small:
                self._progress.small_files_ready(self._version.folder)
            for _ in range(_NUM_DOWNLOADS):
                arrivals = self._fetch(arrivals)
        if arrivals:
            raise ConfigurationError(
                f"{self._source.uri}: {arrivals[0].file.path} does not match its SHA-256, "
                f"downloaded {_NUM_DOWNLOADS} times"
            )

    def _part(self, file: RemoteFile) -> PartFile:
        return PartFile(self._version.parts / file.path, file.size_bytes, RANGE_BYTES)

    def _is_here(self, file: RemoteFile) -> bool:
        """Whether an earlier download came so far; what has its final name was checked."""
        path = self._version.folder / file.path
        return path.is_file() and path.stat().st_size == file.size_bytes

    def _check_room(self, arrivals: Sequence[_Arrival]) -> None:
        missing = sum(arrival.file.size_bytes - arrival.part.num_bytes for arrival in arrivals)
        free = shutil.disk_usage(self._version.folder).free
        if missing > free:
            raise ConfigurationError(
                f"{self._source.uri} needs {missing / 1e9:.1f} GB more and {self._version.folder} "
                f"has {free / 1e9:.1f} GB; set data_dir to a larger disk"
            )
        self._count(self._total_bytes - missing)

    def _fetch(self, arrivals: Sequence[_Arrival]) -> list[_Arrival]:
        """Fetch what is missing of some files.

        Returns:
            Those that came damaged.
        """
        damaged = []
        with self._connections() as pool:
            jobs: dict[Future[None], _Arrival] = {}
            for arrival in arrivals:
                indices = arrival.part.missing
                arrival.num_awaited = len(indices)
                jobs |= {pool.submit(self._fetch_range, arrival, i): arrival for i in indices}
                if not indices and not self._finish(arrival):
                    damaged.append(arrival)
            for job in as_completed(jobs):
                job.result()
                arrival = jobs[job]
                arrival.num_awaited -= 1
                arrival.hash_what_came()  # while others come
                if not arrival.num_awaited and not self._finish(arrival):
                    damaged.append(arrival)
        return damaged

    @contextmanager
    def _connections(self) -> Iterator[Executor]:
        pool = ThreadPoolExecutor(NUM_CONNECTIONS, thread_name_prefix="fetch")
        try:
            yield pool
        except BaseException:
            self._stop.set()
            raise
        finally:
            pool.shutdown(cancel_futures=True)

    def _fetch_range(self, arrival: _Arrival, index: int) -> None:
        """Fetch a range, which may break off as often as it likes while more of it comes."""
        position, end = arrival.part.bounds(index)
        while position < end:
            begin = position
            try:
                for attempt in retrying():
                    with attempt:
                        if self._stop.is_set():
                            raise _Stopped
                        for piece in self._pieces(arrival.file, position, end):
                            arrival.part.write(position, piece)
                            position += len(piece)
                            self._count(len(piece))
            except SourceUnavailable:
                if position == begin:
                    raise
        arrival.part.mark(index)

    def _pieces(self, file: RemoteFile, start: int, end: int) -> Iterator[bytes | memoryview]:
        """What the source gives of a range, as long as it keeps to it and is not too slow."""
        began_s = time.monotonic()
        position = start
        for piece in self._source.read(file, start, end):
            position += len(piece)
            if self._stop.is_set():
                raise _Stopped
            if position > end:
                raise SourceUnavailable(f"{file.path} is more than was asked for")
            yield piece
            elapsed_s = time.monotonic() - began_s
            is_slow = elapsed_s > PATIENCE_S and position - start < elapsed_s * MIN_BYTES_PER_S
            if is_slow and position < end:
                raise SourceUnavailable(f"{file.path} comes too slowly")
        if position == start:
            raise SourceUnavailable(f"{file.path}: nothing came")

    def _finish(self, arrival: _Arrival) -> bool:
        """Check a file that is there and give it its name; `False` if it came damaged."""
        arrival.hash_what_came()
        if arrival.is_damaged:
            log.warning("model.file_damaged", source=self._source.uri, file=arrival.file.path)
            arrival.begin_anew()
            self._count(-arrival.file.size_bytes)
            return False
        arrival.part.move_to(self._version.folder / arrival.file.path)
        if self._small:
            self._small.discard(arrival.file.path)
            if not self._small:
                self._progress.small_files_ready(self._version.folder)
        return True

    def _count(self, num_bytes: int) -> None:
        with self._lock:
            self._num_bytes += num_bytes
            self._progress.advance(self._num_bytes, self._total_bytes)
