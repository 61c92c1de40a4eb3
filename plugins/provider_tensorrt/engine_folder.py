"""The folder of engines while they are built: whole files only, whoever is killed.

`engines/` in the model's folder holds `manifest.json`, and files that are named after their
content. A file is there, whole, before the manifest names it, and goes after the manifest has
forgotten it: what was finished stays, and what was not is removed by the next build.
"""

import fcntl
import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from provider_core import ConfigurationError
from provider_tensorrt.artefact import (
    MANIFEST,
    EngineKey,
    EngineRecord,
    Manifest,
    ModelFile,
    digest_file,
    read_manifest,
)
from provider_tensorrt.decoder_graph import ExportedDecoder

LOCK, SUFFIX, PARTIAL = ".lock", ".engine", ".partial"


class EngineFolder:
    """Engines being added, one at a time; each is there for good when `add` returns.

    Args:
        folder: Made if it is missing.
        manifest: Describes the model; its engines are those that are kept.
    """

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self._folder = folder
        self._manifest = manifest

    def find(self, key: EngineKey) -> EngineRecord | None:
        """A finished engine of exactly this kind, if its file is whole."""
        for record in self._manifest.engines:
            path = self._folder / record.file
            if record.key == key and path.is_file() and digest_file(path) == record.sha256:
                return record
        return None

    def add(self, key: EngineKey, engine: memoryview | bytes) -> EngineRecord:
        """Write an engine, in place of any of the same library and GPU.

        Raises:
            OSError: The disk is full, say; nothing has changed.
        """
        digest = hashlib.sha256(engine).hexdigest()
        name = f"{key.library}-{key.version}-sm{key.compute_capability.replace('.', '')}"
        record = EngineRecord(
            key=key,
            file=f"{name}-{digest[:12]}{SUFFIX}",
            num_bytes=len(engine),
            sha256=digest,
        )
        write_whole(self._folder / record.file, engine)
        kept = [other for other in self._manifest.engines if _slot(other.key) != _slot(key)]
        self._manifest = self._manifest.model_copy(update={"engines": (*kept, record)})
        text = self._manifest.model_dump_json(indent=1)
        write_whole(self._folder / MANIFEST, text.encode())
        self._sweep()
        return record

    def _sweep(self) -> None:
        """Remove what the manifest does not name: replaced engines, and halves of killed builds."""
        named = {record.file for record in self._manifest.engines}
        for path in self._folder.iterdir():
            is_engine = path.suffix == SUFFIX and path.name not in named
            if is_engine or path.name.endswith(PARTIAL):
                path.unlink()


@contextmanager
def open_folder(folder: Path, decoder: ExportedDecoder) -> Iterator[EngineFolder]:
    """Add engines to a folder, alone; engines of another model than this are forgotten.

    Raises:
        ConfigurationError: The folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise ConfigurationError(f"{folder} cannot be written: {error.strerror}") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        described = _describe(decoder)
        try:
            before = read_manifest(folder)
        except ConfigurationError:  # damaged: as if it were not there
            before = None
        is_same = before is not None and _digests(before) == _digests(described)
        engines = before.engines if before is not None and is_same else ()
        yield EngineFolder(folder, described.model_copy(update={"engines": engines}))
    finally:
        os.close(lock)


def write_whole(path: Path, content: memoryview | bytes) -> None:
    """Write a file so that it is there whole or as it was, on the disk when this returns."""
    partial = path.with_name(path.name + PARTIAL)
    with partial.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _describe(decoder: ExportedDecoder) -> Manifest:
    """A manifest without engines, of the model as it is now; reads every byte of it."""
    files = []
    for path in (decoder.path, *decoder.data_files):
        status = path.stat()
        files.append(
            ModelFile(
                name=path.name,
                num_bytes=status.st_size,
                mtime_ns=status.st_mtime_ns,
                sha256=digest_file(path),
            )
        )
    return Manifest(model=tuple(files), precision=decoder.precision, decoder=decoder.io)


def _slot(key: EngineKey) -> tuple[str, str]:
    """Of engines that share these, a folder keeps the last."""
    return key.library, key.compute_capability


def _digests(manifest: Manifest) -> Sequence[tuple[str, str]]:
    return [(file.name, file.sha256) for file in manifest.model]
