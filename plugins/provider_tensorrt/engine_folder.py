"""The folder of engines while they are built: whole files only, whoever is killed.

`engines/` in the model's folder holds `manifest.json`, and files that are named after their
content. A file is there, whole, before the manifest names it, and goes after the manifest has
forgotten it: what was finished stays, and what was not is removed by the next build.
"""

import fcntl
import hashlib
import os
import re
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
    find_least,
    read_manifest,
)
from provider_tensorrt.decoder_graph import ExportedDecoder

LOCK, PARTIAL = ".lock", ".partial"
OURS = re.compile(r"tensorrt(_rtx)?-.+-sm[0-9]+-[0-9a-f]{12}\.engine(\.partial)?")
"""Names of engines, and of those that are being written."""


class EngineFolder:
    """Engines being added, one at a time; each is there for good when `add` returns.

    Args:
        path: Of the folder, which exists.
        manifest: Describes the model; its engines are those that are kept.
    """

    def __init__(self, path: Path, manifest: Manifest) -> None:
        self.path = path
        self._manifest = manifest

    def find(self, key: EngineKey, *, or_larger: bool = False) -> EngineRecord | None:
        """A finished engine of exactly this kind, or one that serves for it; its file is whole."""
        engines = self._manifest.engines
        record = next((record for record in engines if record.key == key), None)
        if or_larger:
            record = find_least(engines, key)
        return record if record is not None and self._is_whole(record) else None

    def add(self, key: EngineKey, engine: memoryview | bytes) -> EngineRecord:
        """Write an engine, in place of those of the same library and GPU that it replaces.

        These are those of the same limits, and those that are outdated.

        Raises:
            OSError: The disk is full, say; nothing has changed.
        """
        digest = hashlib.sha256(engine).hexdigest()
        record = EngineRecord(
            key=key,
            file=f"{name_kind(key)}-{digest[:12]}.engine",
            num_bytes=len(engine),
            sha256=digest,
        )
        write_whole(self.path / record.file, engine)
        kept = [other for other in self._manifest.engines if not _replaces(key, other.key)]
        self._manifest = self._manifest.model_copy(update={"engines": (*kept, record)})
        text = self._manifest.model_dump_json(indent=1)
        write_whole(self.path / MANIFEST, text.encode())
        self._sweep()
        return record

    def _is_whole(self, record: EngineRecord) -> bool:
        try:
            return digest_file(self.path / record.file) == record.sha256
        except OSError:
            return False

    def _sweep(self) -> None:
        """Remove what the manifest does not name: replaced engines, and halves of killed builds."""
        named = {record.file for record in self._manifest.engines}
        for path in self.path.iterdir():
            if OURS.fullmatch(path.name) and path.name not in named:
                path.unlink()


@contextmanager
def open_folder(folder: Path, decoder: ExportedDecoder) -> Iterator[EngineFolder]:
    """Add engines to a folder, alone; those of what the model was before it changed are forgotten.

    Raises:
        ConfigurationError: The folder cannot be written, or is another model's.
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
        if before is not None and not is_same and folder.parent != decoder.path.parent:
            raise ConfigurationError(
                f"{folder} holds engines of another model; name another folder, or remove it"
            )
        engines = before.engines if before is not None and is_same else ()
        yield EngineFolder(folder, described.model_copy(update={"engines": engines}))
    finally:
        os.close(lock)


def name_kind(key: EngineKey) -> str:
    """How files begin that are of one version of a library, and one kind of GPU."""
    return f"{key.library}-{key.version}-sm{key.compute_capability.replace('.', '')}"


def write_whole(path: Path, content: memoryview | bytes) -> None:
    """Write a file so that it is there whole or as it was, on the disk when this returns."""
    partial = path.with_name(path.name + PARTIAL)
    try:
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:  # a full disk, say: gigabytes need not stay
        partial.unlink(missing_ok=True)
        raise
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
                name=path.relative_to(decoder.path.parent).as_posix(),
                num_bytes=status.st_size,
                mtime_ns=status.st_mtime_ns,
                sha256=digest_file(path),
            )
        )
    return Manifest(model=tuple(files), precision=decoder.precision, decoder=decoder.io)


def _replaces(new: EngineKey, old: EngineKey) -> bool:
    """Whether a folder that has the new one has no use for the old one."""
    if (new.library, new.compute_capability) != (old.library, old.compute_capability):
        return False
    return new.limits == old.limits or (new.version, new.recipe) != (old.version, old.recipe)


def _digests(manifest: Manifest) -> Sequence[tuple[str, str]]:
    return [(file.name, file.sha256) for file in manifest.model]
