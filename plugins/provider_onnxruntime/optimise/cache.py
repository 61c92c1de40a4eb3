"""Graphs made ready for this runtime and this processor, kept on disk.

An entry is a folder named after its key: the graph, its weights in the layout that the kernels
want, maybe a second graph over them, and a manifest. It comes to be in a folder beside, is flushed
to the disk and renamed, so that an entry is whole or not there; a lock makes a second server wait
for the first one's work.

What is on disk is not trusted. The manifest says what the files were when they were written, and
they are used only if they still are, belong to us (or to root) and can be written by nobody else.
The graph is compared whole. Gigabytes of weights would take longer to hash than to load: of them
the size and 64 pages are compared, and every byte only where the setting `verify_cache` says so.
"""

import hashlib
import json
import os
import platform
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from provider_core.owned_files import check_owned_file, check_owned_folder, make_owned_folder

try:
    import fcntl
except ImportError:  # Windows: two servers may do the same work, the last one's stays
    fcntl = None  # type: ignore[assignment]

CACHE_FOLDER = ".provider-cache"  # in a model's folder
GRAPH, DATA, MANIFEST, LOCK = "decoder.onnx", "decoder.onnx.data", "manifest.json", "lock"
MIXED = "mixed.onnx"  # over the same data
BUILDING = "building-"
MAX_ENTRIES = 4  # two weight sets, before and after an update
MAX_MANIFEST_BYTES = 2**16
SAMPLED_BYTES = 2**24  # larger files are compared in samples
NUM_SAMPLES, SAMPLE_BYTES = 64, 4096


class InvalidEntry(Exception):
    """An entry must not be used; says why."""


class GraphCache:
    """Entries in one folder.

    Args:
        folder: Made when the first entry is.
        is_thorough: Compare every byte of an entry that is found.
    """

    def __init__(self, folder: Path, *, is_thorough: bool = False) -> None:
        self._folder = folder
        self._is_thorough = is_thorough

    def find(self, key: str) -> Path | None:
        """The graph of an entry; none if there is no such entry.

        Raises:
            InvalidEntry: There is one, and it is not what was written.
        """
        entry = self._folder / key
        if not os.path.lexists(entry):
            return None
        try:
            check_owned_folder(self._folder)
            check_owned_folder(entry)
            _check_files(entry, key, is_thorough=self._is_thorough)
        except PermissionError as error:
            raise InvalidEntry(str(error)) from error
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            raise InvalidEntry(f"{type(error).__name__}: {error}") from error
        return entry / GRAPH

    def build(self, key: str, make: Callable[[Path], None]) -> Path:
        """Make an entry, in place of any of that key, unless somebody just did; return its graph.

        Args:
            key: Of the entry.
            make: Writes GRAPH and maybe DATA and MIXED, and nothing else, into the folder it is
                given.

        Raises:
            OSError: The disk is full, or the folder cannot be written or is somebody else's.
        """
        make_owned_folder(self._folder)
        with self._locked():
            try:
                if graph := self.find(key):
                    return graph
            except InvalidEntry:
                self._remove(self._folder / key)
            for abandoned in self._folder.glob(f"{BUILDING}*"):
                self._remove(abandoned)
            self._fill(key, make)
            self._drop_old_entries(key)
        return self._folder / key / GRAPH

    def discard(self, key: str) -> None:
        """Remove an entry, if that is possible."""
        self._remove(self._folder / key)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
        descriptor = os.open(self._folder / LOCK, flags, 0o600)
        try:
            if fcntl is not None:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _fill(self, key: str, make: Callable[[Path], None]) -> None:
        building = Path(tempfile.mkdtemp(prefix=BUILDING, dir=self._folder))
        try:
            make(building)
            files = {}
            for path in sorted(building.iterdir()):
                path.chmod(0o644)
                files[path.name] = {**fingerprint(path), "sha256": hash_file(path)}
                _flush(path)
            manifest = building / MANIFEST
            manifest.write_text(json.dumps({"key": key, "files": files}, indent=1))
            manifest.chmod(0o644)
            building.chmod(0o755)  # mkdtemp's is ours alone; images are built by root
            _flush(manifest)
            _flush(building)
            building.rename(self._folder / key)
            _flush(self._folder)
        except BaseException:
            self._remove(building)
            raise

    def _drop_old_entries(self, key: str) -> None:
        """Leave the newest; a server that has one mapped keeps its pages."""
        manifests = sorted(
            self._folder.glob(f"*/{MANIFEST}"), key=lambda path: path.stat().st_mtime
        )
        for manifest in manifests[:-MAX_ENTRIES]:
            if manifest.parent.name != key:
                self._remove(manifest.parent)

    @staticmethod
    def _remove(path: Path) -> None:
        if path.is_symlink() or path.is_file():
            path.unlink(missing_ok=True)
        else:
            shutil.rmtree(path, ignore_errors=True)


def make_key(parts: Mapping[str, object]) -> str:
    """A folder's name out of everything that an entry depends on."""
    text = json.dumps(parts, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def fingerprint(path: Path) -> dict[str, object]:
    """What tells a file's content from another's at little cost.

    Returns:
        Its size, and a hash of all of it, or of 64 pages from the first to the last one if it is
        large. A file whose weights were trained on differs on every page.
    """
    size = path.stat().st_size
    digest = hashlib.sha256()
    with path.open("rb") as file:
        if size <= SAMPLED_BYTES:
            digest.update(file.read())
        else:
            for sample in range(NUM_SAMPLES):
                file.seek(sample * (size - SAMPLE_BYTES) // (NUM_SAMPLES - 1))
                digest.update(file.read(SAMPLE_BYTES))
    return {"size": size, "sample": digest.hexdigest()}


def fingerprint_source(paths: Iterable[Path]) -> list[dict[str, object]]:
    """Fingerprints of a model's files, with the whole second in which each was last written.

    The time tells an edit of few bytes in place. Whole seconds survive archives and images.
    """
    return [{**fingerprint(path), "mtime": int(path.stat().st_mtime)} for path in paths]


def read_processor_features(path: Path = Path("/proc/cpuinfo")) -> str:
    """Instruction sets, on which the layout of prepacked weights depends.

    Only the first processor's are read. Elsewhere than on Linux it is what Python knows.
    """
    wanted = ("vendor_id", "model name", "flags", "Features", "CPU implementer", "CPU part")
    try:
        with path.open() as file:
            lines = []
            for line in file:
                if not line.strip():
                    break
                if line.partition("\t")[0].rstrip(":") in wanted:
                    lines.append(line.strip())
    except OSError:
        return f"{platform.processor()} {platform.machine()}"
    return "\n".join([platform.machine(), *lines])


def hash_file(path: Path) -> str:
    """sha256 of a file, as hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check_files(entry: Path, key: str, *, is_thorough: bool) -> None:
    """Compare an entry with its manifest.

    Raises:
        InvalidEntry: They differ.
        OSError: A file is missing, not ours alone, or cannot be read.
        ValueError, LookupError, TypeError, AttributeError: The manifest is not one of ours.
    """
    path = entry / MANIFEST
    check_owned_file(path)
    if path.stat().st_size > MAX_MANIFEST_BYTES:
        raise InvalidEntry("its manifest is too large")
    manifest = json.loads(path.read_bytes())
    files = manifest["files"]
    if manifest["key"] != key or GRAPH not in files or not files.keys() <= {GRAPH, DATA, MIXED}:
        raise InvalidEntry("its manifest is of another entry")
    for name, written in files.items():
        check_owned_file(entry / name)
        found = fingerprint(entry / name)
        if is_thorough:
            found["sha256"] = hash_file(entry / name)
        if any(found[what] != written[what] for what in found):
            raise InvalidEntry(f"{name} is not what was written")


def _flush(path: Path) -> None:
    """Have a file's or folder's content on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
