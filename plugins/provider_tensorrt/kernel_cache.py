"""Kernels that TensorRT for RTX compiled for a GPU, kept on disk for the next start.

They lie in `kernels/` beside the engines, one file for each engine and each GPU, driver and library
that compiled for it. Kernels are code: a file is used only if it and its folder are ours alone (see
`provider_core.owned_files`), and the digest in front is that of what follows, under the name that
was asked for. Any other is as if it were not there. The library looks, too: whether what
it is given was compiled in an environment like this one.
"""

import hashlib
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

import structlog

from provider_core.owned_files import check_owned_folder, make_owned_folder, open_owned_file

FOLDER, SUFFIX, PARTIAL = "kernels", ".kernels", ".partial"
DIGEST_BYTES = hashlib.sha256().digest_size
MAX_FILES = 8  # two engines on four kinds of GPU, say

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class KernelCache:
    """The kernels of one engine. Whatever happens to the files costs time, and nothing else.

    Attributes:
        folder: Made when the first file is written.
        engine: The engine's SHA-256, in hexadecimal.
    """

    folder: Path
    engine: str

    def read(self, environment: str) -> bytes | None:
        """What was written in the same environment; `None` if there is nothing to be used.

        Args:
            environment: GPU, driver and library, in one line.
        """
        path = self._path(environment)
        try:
            check_owned_folder(self.folder)
            with open(path, "rb", opener=open_owned_file) as file:
                digest, kernels = file.read(DIGEST_BYTES), file.read()
        except FileNotFoundError:
            return None
        except OSError as error:
            log.warning("kernels.dropped", file=str(path), reason=error.strerror or str(error))
            return None
        if digest != _digest(path, kernels):
            log.warning("kernels.dropped", file=str(path), reason="it is cut off or damaged")
            return None
        return kernels

    def write(self, environment: str, kernels: bytes) -> None:
        """Keep kernels, whole or not at all, in the place of those that are there."""
        path = self._path(environment)
        try:
            make_owned_folder(self.folder)
            _replace(path, _digest(path, kernels) + kernels)
            self._drop_oldest()
        except OSError as error:  # an image may be read-only, or its disk full
            log.info("kernels.not_kept", file=str(path), reason=error.strerror or str(error))

    def _path(self, environment: str) -> Path:
        key = hashlib.sha256(f"{self.engine}\n{environment}".encode()).hexdigest()
        return self.folder / f"{key[:32]}{SUFFIX}"

    def _drop_oldest(self) -> None:
        """Leave the newest, what killed servers left half written among the others."""
        files = sorted(self.folder.iterdir(), key=lambda path: path.lstat().st_mtime)
        for path in files[:-MAX_FILES]:
            path.unlink(missing_ok=True)


def _digest(path: Path, kernels: bytes) -> bytes:
    return hashlib.sha256(path.name.encode() + b"\n" + kernels).digest()


def _replace(path: Path, content: bytes) -> None:
    """Write a file beside and rename it; two servers may do so at once."""
    descriptor, name = tempfile.mkstemp(prefix=path.stem, suffix=PARTIAL, dir=path.parent)
    partial = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.chmod(0o644)  # mkstemp's is ours alone; images are built by root
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
