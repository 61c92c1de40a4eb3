"""Graphs made ready for this runtime and this processor, kept on disk.

An entry is a folder named after its key: the graph, its weights in the layout that the kernels
want, maybe a second graph over them, and a manifest. It comes to be in a folder beside, is flushed
to the disk and renamed, so that an entry is whole or not there; a lock makes a second server wait
for the first one's work.

What is on disk is not trusted. The manifest says what the files were when they were written, and
they are used only if they still are, belong to us (or to root) and can be written by nobody else.
`find` compares the graph whole, and of gigabytes of weights the size and 64 pages; `compare` every
byte, 10 GB of them in a second, while the runtime reads them anyway.
"""

import hashlib
import json
import mmap
import os
import platform
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import xxhash

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
_NOT_OURS = (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError)
"""What reading a manifest raises that we did not write, or whose files are gone."""


class InvalidEntry(Exception):
    """An entry must not be used; says why."""


class GraphCache:
    """Entries in one folder.

    Args:
        folder: Made when the first entry is.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def find(self, key: str) -> Path | None:
        """The graph of an entry; none if there is no such entry. Its weights are sampled.

        Raises:
            InvalidEntry: There is one, and it is not what was written.
        """
        entry = self._folder / key
        if not os.path.lexists(entry):
            return None
        try:
            check_owned_folder(self._folder)
            check_owned_folder(entry)
            for name, written in _read_manifest(entry, key).items():
                check_owned_file(entry / name)
                found = fingerprint(entry / name)
                if any(found[what] != written[what] for what in found):
                    raise InvalidEntry(f"{name} is not what was written")
        except PermissionError as error:
            raise InvalidEntry(str(error)) from error
        except _NOT_OURS as error:
            raise InvalidEntry(f"{type(error).__name__}: {error}") from error
        return entry / GRAPH

    def compare(self, key: str) -> None:
        """Compare every byte of an entry that was found. No interpreter lock is needed meanwhile.

        Raises:
            InvalidEntry: One is not what was written.
        """
        entry = self._folder / key
        try:
            for name, written in _read_manifest(entry, key).items():
                if hash_content(entry / name) != written["xxh3_128"]:
                    raise InvalidEntry(f"{name} is not what was written")
        except _NOT_OURS as error:
            raise InvalidEntry(f"{type(error).__name__}: {error}") from error

    def build(
        self,
        key: str,
        make: Callable[[Path], None],
        check: Callable[[Path], None] = lambda _: None,
    ) -> Path:
        """Make an entry, in place of one that is not what was written; return its graph.

        One that is, because another server just made it, is compared to the last byte and left.

        Args:
            key: Of the entry.
            make: Writes GRAPH and maybe DATA and MIXED, and nothing else, into the folder it is
                given.
            check: Raises InvalidEntry for a graph that cannot be used, whatever its manifest says.

        Raises:
            OSError: The disk is full, or the folder cannot be written or is somebody else's.
        """
        make_owned_folder(self._folder)
        with self._locked():
            try:
                if graph := self.find(key):
                    self.compare(key)
                    check(graph)
                    return graph
            except InvalidEntry:
                self._remove(self._folder / key)
            for abandoned in self._folder.glob(f"{BUILDING}*"):
                self._remove(abandoned)
            self._fill(key, make)
            self._drop_old_entries(key)
        return self._folder / key / GRAPH

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
                files[path.name] = {**fingerprint(path), "xxh3_128": hash_content(path)}
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


def hash_content(path: Path) -> str:
    """XXH3 of a file, as hexadecimal digits: for what went wrong, not for what was forged."""
    if path.stat().st_size == 0:  # nothing to map
        return xxhash.xxh3_128().hexdigest()
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as pages:
        return xxhash.xxh3_128(pages).hexdigest()


def _read_manifest(entry: Path, key: str) -> dict[str, dict[str, object]]:
    """What an entry's files were when they were written, by name.

    Raises:
        InvalidEntry: It is another entry's.
        Exception: One of `_NOT_OURS`; the manifest is missing, or none of ours.
    """
    path = entry / MANIFEST
    check_owned_file(path)
    if path.stat().st_size > MAX_MANIFEST_BYTES:
        raise InvalidEntry("its manifest is too large")
    manifest = json.loads(path.read_bytes())
    files: dict[str, dict[str, object]] = manifest["files"]
    if manifest["key"] != key or GRAPH not in files or not files.keys() <= {GRAPH, DATA, MIXED}:
        raise InvalidEntry("its manifest is of another entry")
    return files


def _flush(path: Path) -> None:
    """Have a file's or folder's content on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
