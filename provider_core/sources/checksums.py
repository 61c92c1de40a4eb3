"""`SHA256SUMS`: a file that says what the others must be, as `sha256sum` of coreutils writes it."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

from provider_core.errors import ConfigurationError
from provider_core.sources.remote import RemoteFile

SUMS_FILE = "SHA256SUMS"
MAX_SUMS_BYTES = 2**20

_LINE = re.compile(r"([0-9a-fA-F]{64}) [ *](.+)")  # digest, space, kind of reading, name


def parse_sums(content: bytes, uri: str) -> dict[str, str]:
    """SHA-256 by path, in the file's order.

    Args:
        content: Of the file.
        uri: The folder's, for errors.

    Raises:
        ConfigurationError: A line is not of that format.
    """
    sums: dict[str, str] = {}
    for number, line in enumerate(content.decode("utf-8", "replace").splitlines(), start=1):
        match = _LINE.fullmatch(line)
        if match is None:
            raise ConfigurationError(f"{uri}: line {number} of {SUMS_FILE} is not of sha256sum")
        sums[match[2].removeprefix("./")] = match[1].lower()
    return sums


def apply_sums(files: Sequence[RemoteFile], sums: Mapping[str, str], uri: str) -> list[RemoteFile]:
    """Files with the checksums that are known of them.

    Raises:
        ConfigurationError: A file that has one is not there.
    """
    if missing := sorted(sums.keys() - {file.path for file in files} - {SUMS_FILE}):
        raise ConfigurationError(f"{uri}: {SUMS_FILE} names {missing[0]!r}, which is not there")
    return [replace(file, sha256=sums.get(file.path, file.sha256)) for file in files]
