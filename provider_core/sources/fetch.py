"""From a source to a local folder, once."""

from collections.abc import Sequence
from pathlib import Path

import structlog

from provider_core.errors import ConfigurationError
from provider_core.sources.cache import READ_ONLY, SourceCache
from provider_core.sources.checksums import MAX_SUMS_BYTES, SUMS_FILE, apply_sums, parse_sums
from provider_core.sources.download import Download
from provider_core.sources.remote import (
    FetchProgress,
    RemoteFile,
    RemoteFolder,
    SourceUnavailable,
    check_paths,
)
from provider_core.sources.retries import NUM_ATTEMPTS, retrying

log = structlog.get_logger()

_NUM_GLANCES = 2  # at a source of which there is a copy


def fetch_folder(source: RemoteFolder, cache_dir: Path, progress: FetchProgress) -> Path:
    """Bring what a source has now to this machine, if it is not here.

    A source that cannot be reached is served from what is here of it, if that is whole; so is one
    that has something newer, if that cannot be kept because the disk is read-only.

    Args:
        source: Where it is.
        cache_dir: Where fetched models are kept.
        progress: Hears how far it is.

    Returns:
        A folder of the model's files as plain files.

    Raises:
        ConfigurationError: It cannot be had, or not be kept.
    """
    cache = SourceCache(cache_dir, source.uri)
    try:
        with cache.locked():
            return _fetch(source, cache, progress)
    except SourceUnavailable as error:
        kept = cache.latest()
        if kept is None:
            raise ConfigurationError(f"{source.uri} cannot be fetched: {error}") from error
        log.warning(
            "model.source_unavailable", source=source.uri, error=str(error), folder=str(kept)
        )
        return kept
    except OSError as error:
        kept = cache.latest() if error.errno in READ_ONLY else None
        if kept is None:
            raise ConfigurationError(
                f"{source.uri} cannot be kept in {cache.root}: {error.strerror}"
            ) from error
        log.warning(
            "model.copy_outdated", source=source.uri, error=error.strerror, folder=str(kept)
        )
        return kept


def _fetch(source: RemoteFolder, cache: SourceCache, progress: FetchProgress) -> Path:
    files = _list_files(source, NUM_ATTEMPTS if cache.latest() is None else _NUM_GLANCES)
    version = cache.version(files)
    if not version.is_whole:
        version.begin()
        Download(source, files, version, progress).run()
        version.finish()
        num_bytes = sum(file.size_bytes for file in files)
        log.info("model.fetched", source=source.uri, folder=str(version.folder), bytes=num_bytes)
    return cache.use(version)


def _list_files(source: RemoteFolder, num_attempts: int) -> list[RemoteFile]:
    """What a source has, with every checksum it gives.

    Raises:
        SourceUnavailable: It does not say.
        ConfigurationError: It has nothing, too much, or something with a name that must not be.
    """
    for attempt in retrying(num_attempts):
        with attempt:
            try:
                files = _with_sums(source, source.list_files())
            except OSError as error:  # of a connection: nothing is written yet
                raise SourceUnavailable(type(error).__name__) from error
    check_paths([file.path for file in files], source.uri)
    return files


def _with_sums(source: RemoteFolder, files: Sequence[RemoteFile]) -> list[RemoteFile]:
    sums_file = next((file for file in files if file.path == SUMS_FILE), None)
    if sums_file is None or sums_file.size_bytes > MAX_SUMS_BYTES:
        return list(files)
    content = b""
    while len(content) < sums_file.size_bytes:
        came = b"".join(source.read(sums_file, len(content), sums_file.size_bytes))
        if not came:
            raise SourceUnavailable(f"{SUMS_FILE} is cut off")
        content += came
    others = [file for file in files if file is not sums_file]
    return apply_sums(others, parse_sums(content, source.uri), source.uri)
