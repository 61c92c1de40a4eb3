"""A server under load: where it is, how it is spoken to, and the bytes of a request to it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import urlsplit

import orjson

from provider_core.errors import ConfigurationError
from provider_core.loadtest.workload import Request

Dialect = Literal["chat", "completions", "llama"]

_ENDPOINTS: Mapping[str, Dialect] = {
    "/chat/completions": "chat",
    "/completions": "completions",
    "/completion": "llama",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """What every request of a run asks beside prompt and length.

    Attributes:
        temperature: 0 is greedy.
        ignore_eos: Ask for exactly as many tokens as planned.
        extra: Further fields of the body; `None` takes one of ours out.
    """

    temperature: float = 0.0
    ignore_eos: bool = True
    extra: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One server under load.

    Attributes:
        label: Names it in tables and plots.
        path: Of the endpoint; its end tells the dialect.
        key: Sent as a bearer token; `None` sends none.
        model: The `model` field; `None` leaves it out.
        pid: Its process on this machine, if it is here and known.
        sampling: What every request asks.
    """

    label: str
    host: str
    port: int
    is_tls: bool
    path: str
    key: str | None = None
    model: str | None = None
    pid: int | None = None
    sampling: Sampling = field(default_factory=Sampling)

    @property
    def dialect(self) -> Dialect:
        """How requests to it are written."""
        return dialect_of(self.path)

    @property
    def models_path(self) -> str:
        """Where it lists its models."""
        stem = self.path
        for end in _ENDPOINTS:
            stem = stem.removesuffix(end)
        return f"{stem}/models"

    @property
    def url(self) -> str:
        """Scheme, host and port."""
        scheme = "https" if self.is_tls else "http"
        return f"{scheme}://{self.authority}"

    @property
    def authority(self) -> str:
        """Host and port as the `Host` header has them."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    def post(self, request: Request) -> bytes:
        """The bytes of one streamed request, head and body."""
        return self._message("POST", self.path, orjson.dumps(self._body(request)))

    def get(self, path: str) -> bytes:
        """The bytes of a GET."""
        return self._message("GET", path, b"")

    def _message(self, method: str, path: str, body: bytes) -> bytes:
        lines = [
            f"{method} {path} HTTP/1.1",
            f"Host: {self.authority}",
            "Accept: text/event-stream, application/json",
            "Connection: close",
        ]
        if self.key:
            lines.append(f"Authorization: Bearer {self.key}")
        if body:
            lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
        return "\r\n".join([*lines, "", ""]).encode("latin-1") + body

    def _body(self, request: Request) -> dict[str, object]:
        sampling = self.sampling
        body: dict[str, object] = {"stream": True, "temperature": sampling.temperature}
        if sampling.ignore_eos:
            body["ignore_eos"] = True
        if self.model is not None:
            body["model"] = self.model
        if self.dialect == "llama":
            body |= {
                "prompt": request.prompt,
                "n_predict": request.max_tokens,
                "cache_prompt": request.num_shared_tokens > 0,
            }
        else:
            body |= {
                "max_tokens": request.max_tokens,
                "stream_options": {"include_usage": True},
            }
            if self.dialect == "chat":
                body["messages"] = request.messages
            else:
                body["prompt"] = request.prompt
        body |= request.extra
        body |= sampling.extra
        return {name: value for name, value in body.items() if value is not None}


def dialect_of(path: str) -> Dialect:
    """How requests to a path are written.

    Raises:
        ConfigurationError: The path is none of the endpoints that are known.
    """
    for end, dialect in _ENDPOINTS.items():
        if path.endswith(end):
            return dialect
    known = ", ".join(f"/v1{end}" for end in list(_ENDPOINTS)[:2])
    raise ConfigurationError(f"{path!r} is no endpoint for text; known are {known}, /completion")


def make_target(
    url: str,
    *,
    label: str,
    path: str | None = None,
    key: str | None = None,
    model: str | None = None,
    pid: int | None = None,
    sampling: Sampling | None = None,
) -> Target:
    """A server from its address.

    Args:
        url: The server, its `/v1`, or the endpoint itself; without one, `/v1/completions`.
        label: Names it in tables and plots.
        path: Of the endpoint, in the place of the URL's.
        key: API key.
        model: The `model` field.
        pid: Its process on this machine.
        sampling: What every request asks.

    Raises:
        ConfigurationError: The URL, the path or the key cannot be used.
    """
    try:
        parts = urlsplit(url)
        is_http = parts.scheme in {"http", "https"} and bool(parts.hostname)
        port = parts.port
    except ValueError:  # a port that is none
        is_http = False
    if not is_http:
        raise ConfigurationError(f"{url!r} is not an http or https address")
    if key is not None and not (key.isascii() and key.isprintable()):
        raise ConfigurationError("the API key holds characters that no key has")
    is_tls = parts.scheme == "https"
    if path is None:
        path = parts.path.rstrip("/")
        if not path.endswith(tuple(_ENDPOINTS)):
            path = path.removesuffix("/v1") + "/v1/completions"
    if not (path.startswith("/") and path.isascii() and path.isprintable() and " " not in path):
        raise ConfigurationError(f"{path!r} is not the path of a URL")
    dialect_of(path)
    return Target(
        label=label,
        host=str(parts.hostname),
        port=port or (443 if is_tls else 80),
        is_tls=is_tls,
        path=path,
        key=key,
        model=model,
        pid=pid,
        sampling=sampling or Sampling(),
    )
