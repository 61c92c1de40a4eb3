"""`provider chat`: a conversation in the terminal with a running server."""

import json
import sys
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager, suppress
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from importlib import import_module
from typing import Annotated, Any
from urllib.parse import urlsplit

import typer

from provider_core.errors import ConfigurationError, ProviderError

DEFAULT_URL = "http://127.0.0.1:8000"

TIMEOUT_S = 120
"""Longest silence; a server that works sends a keep-alive comment every few seconds."""

# A model's text must not steer the terminal: of all control characters only these pass.
_CONTROLS = dict.fromkeys({*range(0x20), *range(0x7F, 0xA0)} - {ord("\n"), ord("\t")})


def chat(
    *,
    url: Annotated[str, typer.Option(help="Where the server listens.")] = DEFAULT_URL,
    key: Annotated[
        str | None, typer.Option(envvar="PROVIDER_API_KEY", help="API key of the server.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Model to talk to; default: the first one listed.")
    ] = None,
) -> None:
    """Talk to a model. A line is a turn; /exit or Ctrl-D ends, Ctrl-C stops an answer.

    Piped input is read line by line too, and only the answers are printed.
    """
    server = _Server(url, key)
    model = model or server.first_model()
    is_terminal = sys.stdin.isatty()
    if is_terminal:
        with suppress(ImportError):  # not on every system; gives `input` editing and history
            import_module("readline")
        typer.echo(f"{model} at {url} - /exit to leave")
    messages: list[dict[str, str]] = []
    for text in _turns(prompt="> " if is_terminal else None):
        messages.append({"role": "user", "content": text})
        try:
            with closing(server.stream(model, messages)) as pieces:
                answer = _show(pieces)
        except ProviderError as error:
            if not is_terminal:
                raise
            typer.echo(f"provider: {error.message}", err=True)
            messages.pop()
        else:
            messages.append({"role": "assistant", "content": answer})


def _turns(prompt: str | None) -> Iterator[str]:
    """What the person says, empty lines left out, until the end of input or `/exit`."""
    while True:
        try:
            line = input(prompt) if prompt else sys.stdin.readline()
        except (EOFError, KeyboardInterrupt):
            typer.echo()
            return
        if (not line and not prompt) or line.strip() == "/exit":
            return
        if line.strip():
            yield line.rstrip("\n")


def _show(pieces: Iterator[str]) -> str:
    """Print an answer as it comes; Ctrl-C keeps what was said so far."""
    said = ""
    try:
        for piece in pieces:
            said += piece
            typer.echo(piece.translate(_CONTROLS), nl=False)
    except KeyboardInterrupt:
        typer.echo(" (stopped)", nl=False, err=True)
    typer.echo()
    return said


class _Server:
    """The two requests of the OpenAI API that a conversation needs.

    Args:
        url: With or without `/v1` at its end.
        key: Sent as a bearer token if given.

    Raises:
        ConfigurationError: The URL is not one of HTTP.
    """

    def __init__(self, url: str, key: str | None) -> None:
        try:
            parts = urlsplit(url)
            is_http = parts.scheme in {"http", "https"} and bool(parts.hostname)
            port = parts.port
        except ValueError:  # a port that is none
            is_http = False
        if not is_http:
            raise ConfigurationError(f"--url is {url!r}, not an http or https address")
        if key is not None and not (key.isascii() and key.isprintable()):
            raise ConfigurationError("--key holds characters that no API key has")
        self._url = url
        self._is_tls = parts.scheme == "https"
        self._host, self._port = str(parts.hostname), port
        self._prefix = parts.path.rstrip("/").removesuffix("/v1") + "/v1"
        self._headers = {"Content-Type": "application/json"}
        if key:
            self._headers["Authorization"] = f"Bearer {key}"

    def first_model(self) -> str:
        """The id of the first model listed.

        Raises:
            ProviderError: The server lists none, or cannot be asked.
        """
        with self._request("GET", "/models") as response:
            try:
                return str(json.load(response)["data"][0]["id"])
            except (ValueError, LookupError, TypeError) as error:
                raise ProviderError(f"the server at {self._url} lists no model") from error

    def stream(self, model: str, messages: list[dict[str, str]]) -> Generator[str, None, None]:
        """Ask for an answer and yield its text as it comes; closing the iterator stops it.

        Raises:
            ProviderError: The server refused, failed on the way, or went away.
        """
        body = {"model": model, "messages": messages, "stream": True}
        with self._request("POST", "/chat/completions", json.dumps(body)) as response:
            try:
                for event in _events(response):
                    if "error" in event:
                        raise ProviderError(_message_of(event["error"]))
                    for choice in event.get("choices", ()):
                        yield choice.get("delta", {}).get("content") or ""
            except (OSError, HTTPException, ValueError, AttributeError, TypeError) as error:
                raise ProviderError(f"the server at {self._url} broke off: {error}") from error

    @contextmanager
    def _request(self, method: str, path: str, body: str | None = None) -> Iterator[HTTPResponse]:
        connect = HTTPSConnection if self._is_tls else HTTPConnection
        with closing(connect(self._host, self._port, timeout=TIMEOUT_S)) as connection:
            try:
                connection.request(method, self._prefix + path, body, self._headers)
                response = connection.getresponse()
            except (OSError, HTTPException) as error:
                raise ProviderError(
                    f"no server answers at {self._url} ({error}); start one with: provider serve"
                ) from error
            with response:
                if response.status != 200:
                    raise ProviderError(_refusal(response))
                yield response


def _message_of(error: object) -> str:
    """What a server says went wrong, in OpenAI's shape or any other."""
    return str(error.get("message", "unknown error")) if isinstance(error, dict) else str(error)


def _events(response: HTTPResponse) -> Iterator[dict[str, Any]]:  # JSON of any server
    """The JSON objects of a server-sent event stream, up to `[DONE]`; comments are left out."""
    for line in response:
        if line.startswith(b"data:"):
            data = line.removeprefix(b"data:").strip()
            if data == b"[DONE]":
                return
            yield json.loads(data)


def _refusal(response: HTTPResponse) -> str:
    if response.status == 401:
        return (
            "the server wants a key: pass --key or set PROVIDER_API_KEY "
            "(`provider serve` shows one at its first start)"
        )
    try:
        return str(json.load(response)["error"]["message"])
    except (ValueError, LookupError, TypeError):
        return f"the server answered with status {response.status}"
