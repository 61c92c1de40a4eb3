"""`https://host/folder/`: a folder on a web server, which `SHA256SUMS` in it describes."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import quote, urlsplit, urlunsplit

from provider_core.errors import ConfigurationError
from provider_core.sources.checksums import MAX_SUMS_BYTES, SUMS_FILE, parse_sums
from provider_core.sources.fetch import fetch_folder
from provider_core.sources.http_ranges import check_scheme, open_range, read_pieces, request
from provider_core.sources.remote import FetchProgress, RemoteFile, SourceUnavailable, check_paths

_NUM_CONNECTIONS = 8


def fetch_web_folder(uri: str, cache_dir: Path, progress: FetchProgress) -> Path:
    """Bring such a folder here.

    Raises:
        ConfigurationError: It cannot be had.
    """
    return fetch_folder(HttpsFolder(uri), cache_dir, progress)


class HttpsFolder:
    """Such a folder.

    Args:
        uri: Its address; a query, such as a signature, goes with each request.

    Raises:
        ConfigurationError: It has a password in it, or is neither https nor on loopback.
    """

    def __init__(self, uri: str) -> None:
        check_scheme(uri)
        url = urlsplit(uri)
        if url.username is not None or url.password is not None:
            raise ConfigurationError(f"{url.hostname}: an address must hold no password")
        self._url = url._replace(path=url.path.removesuffix(SUMS_FILE).rstrip("/") + "/")
        self.uri = urlunsplit(self._url._replace(query="", fragment=""))

    def list_files(self) -> Sequence[RemoteFile]:
        """The files that `SHA256SUMS` names, and their sizes."""
        sums = parse_sums(self._read_sums(), self.uri)
        check_paths(sums, self.uri)  # before any of them is asked for
        with ThreadPoolExecutor(_NUM_CONNECTIONS) as pool:
            return list(pool.map(self._look_at, sums, sums.values()))

    def read(self, file: RemoteFile, start: int, end: int) -> Iterator[bytes]:
        """Read a range of a file."""
        address = self._address(file.path)
        return read_pieces(open_range(address, start, end, version=file.version))

    def _read_sums(self) -> bytes:
        response = request(self._address(SUMS_FILE))
        content = bytearray()
        for piece in read_pieces(response):
            content += piece
            if len(content) > MAX_SUMS_BYTES:
                response.close()
                raise ConfigurationError(f"{self.uri}{SUMS_FILE} is over {MAX_SUMS_BYTES} B")
        if response.length:
            raise SourceUnavailable(f"{self.uri}{SUMS_FILE} is cut off")
        return bytes(content)

    def _look_at(self, path: str, sha256: str) -> RemoteFile:
        with request(self._address(path), method="HEAD") as response:
            size, version = response.headers["Content-Length"], response.headers["ETag"]
        if size is None or not size.isdigit():
            raise ConfigurationError(f"{self.uri}{path}: the server does not say how large it is")
        return RemoteFile(path=path, size_bytes=int(size), version=version or "", sha256=sha256)

    def _address(self, path: str) -> str:
        return urlunsplit(self._url._replace(path=self._url.path + quote(path)))
