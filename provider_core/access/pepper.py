"""The pepper of the keyed hash: 32 bytes in a file of its own, or what the settings name."""

import os
import secrets
from pathlib import Path

from provider_core.errors import ConfigurationError

MIN_BYTES = 16
"""Of a pepper from elsewhere."""

_FILE_BYTES = 32


class Pepper:
    """Read when it is first needed: a server with a key in its settings never needs it.

    Args:
        path: Of the file.
        value: Stands in for the file.

    Raises:
        ConfigurationError: `value` is too short to be one.
    """

    def __init__(self, path: Path, value: bytes | None = None) -> None:
        if value is not None and len(value) < MIN_BYTES:
            raise ConfigurationError(f"access.pepper must have {MIN_BYTES} bytes at least")
        self._path = path
        self._value = value

    def load(self) -> bytes:
        """Read it.

        Raises:
            ConfigurationError: It is missing or damaged, so that no stored key can be checked.
        """
        if self._value is None:
            try:
                value = self._path.read_bytes()
            except OSError as error:
                raise ConfigurationError(
                    f"{self._path}: the pepper of the stored keys cannot be read"
                ) from error
            if len(value) != _FILE_BYTES:
                raise ConfigurationError(
                    f"{self._path} must hold {_FILE_BYTES} bytes, not {len(value)}"
                )
            self._value = value
        return self._value

    def load_or_make(self) -> bytes:
        """Read it; before the first key is stored, make it.

        Raises:
            ConfigurationError: It is damaged.
            OSError: The folder cannot be written.
        """
        if self._value is None and not self._path.exists():
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            # Of two servers that start at once on one folder both use the pepper of the first.
            _create_unless_there(self._path, secrets.token_bytes(_FILE_BYTES))
        return self.load()


def _create_unless_there(path: Path, content: bytes) -> None:
    """Create a file, whole or not at all."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.link(draft, path)
    except FileExistsError:
        return
    except OSError:  # a file system without hard links, as some mounted volumes are
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
