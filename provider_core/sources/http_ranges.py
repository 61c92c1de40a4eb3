"""Ranges of files over HTTP, with the standard library alone: a start waits for every import."""

import http.client
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from typing import IO
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, OpenerDirector, Request, build_opener

import provider_core
from provider_core.errors import ConfigurationError
from provider_core.sources.remote import SourceUnavailable

TIMEOUT_S = 30.0
"""Silence on a connection, from its opening on."""

PIECE_BYTES = 2**20

_LOOPBACK = {"localhost", "127.0.0.1", "::1"}
_MAY_PASS = {  # beside all that say that it is the server's fault
    HTTPStatus.REQUEST_TIMEOUT,
    HTTPStatus.TOO_EARLY,
    HTTPStatus.TOO_MANY_REQUESTS,
}


def check_scheme(url: str) -> None:
    """Refuse what others could read or change on its way; this machine's own servers may.

    Raises:
        ConfigurationError: It is neither https nor on loopback.
    """
    parts = urlsplit(url)
    if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in _LOOPBACK):
        raise ConfigurationError(f"{parts.scheme}://{parts.hostname}: models come over https only")


def request(
    url: str, *, method: str = "GET", headers: Mapping[str, str] | None = None
) -> http.client.HTTPResponse:
    """Send a request and follow redirects.

    Args:
        url: Whole; its query may be a signature, so no message has it.
        method: `GET` or `HEAD`.
        headers: Sent to this address only, and to none that it redirects to.

    Raises:
        SourceUnavailable: No answer, or one that says "later".
        ConfigurationError: An answer that says "no".
    """
    asked = Request(url, method=method)  # noqa: S310 - `check_scheme` has seen it
    for name, value in {"Accept-Encoding": "identity", **(headers or {})}.items():
        if name in {"Range", "If-Match", "Accept-Encoding"}:
            asked.add_header(name, value)
        else:  # a token is for the host that it was given for
            asked.add_unredirected_header(name, value)
    where = f"{urlsplit(url).hostname}{urlsplit(url).path}"
    try:
        response: http.client.HTTPResponse = _opener().open(asked, timeout=TIMEOUT_S)
    except HTTPError as error:
        with error:
            raise _refusal(error.code, where) from None
    except (URLError, OSError, http.client.HTTPException) as error:
        reason = error.reason if isinstance(error, URLError) else error
        raise SourceUnavailable(f"{where}: {type(reason).__name__}") from error
    return response


def open_range(
    url: str,
    start: int,
    end: int,
    *,
    version: str = "",
    headers: Mapping[str, str] | None = None,
) -> http.client.HTTPResponse:
    """Ask for a range of a file.

    Args:
        url: The file's.
        start: First byte.
        end: Behind the last byte.
        version: Its ETag, if these bytes and no others are wanted.
        headers: As of `request`.

    Returns:
        The answer, of which nothing is read yet; its `url` is where redirects have led.

    Raises:
        SourceUnavailable: As `request`.
        ConfigurationError: The server knows no ranges, or as `request`.
    """
    wanted = {"Range": f"bytes={start}-{end - 1}", **(headers or {})}
    if version.startswith('"'):  # a weak one says nothing of bytes
        wanted["If-Match"] = version
    response = request(url, headers=wanted)
    given = response.headers.get("Content-Range", "")
    if response.status == HTTPStatus.PARTIAL_CONTENT and given.startswith(f"bytes {start}-"):
        return response
    response.close()
    raise ConfigurationError(f"{urlsplit(url).hostname} does not answer requests for ranges")


def read_pieces(response: http.client.HTTPResponse) -> Iterator[bytes]:
    """Read an answer as it comes, and close it.

    Raises:
        SourceUnavailable: The connection broke or fell silent.
    """
    with response:
        while True:
            try:
                piece = response.read1(PIECE_BYTES)
            except (OSError, http.client.HTTPException) as error:
                raise SourceUnavailable(f"the connection broke: {type(error).__name__}") from error
            if not piece:
                return
            yield piece


class _Redirects(HTTPRedirectHandler):
    """Follows redirects to where a request may go."""

    def redirect_request(
        self,
        req: Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> Request | None:
        try:
            check_scheme(newurl)
        except ConfigurationError:
            fp.close()
            raise
        redirected = super().redirect_request(req, fp, code, msg, headers, newurl)
        if redirected is not None:
            redirected.method = req.get_method()  # before Python 3.13 a HEAD became a GET
        return redirected


def _opener() -> OpenerDirector:
    opener = build_opener(_Redirects)
    opener.addheaders = [("User-Agent", f"provider-core/{provider_core.__version__}")]
    return opener


def _refusal(status: int, where: str) -> Exception:
    phrase = http.client.responses.get(status, "unknown")
    if status in _MAY_PASS or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return SourceUnavailable(f"{where}: {status} {phrase}")
    if status == HTTPStatus.PRECONDITION_FAILED:
        return ConfigurationError(f"{where} changed while it was fetched; start again")
    return ConfigurationError(f"{where}: {status} {phrase}")
