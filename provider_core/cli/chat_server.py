"""The server that `provider chat` talks to, over HTTP."""

import json
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from typing import Any
from urllib.parse import urlsplit

from provider_core.errors import ConfigurationError, ProviderError

TIMEOUT_S = 120
"""Longest silence; a server that works sends a keep-alive comment every few seconds."""


class ChatServer:
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
