"""One request and its answer, and how to repeat the request by hand."""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from provider_core.conformance.verdict import Failed

KEY_VARIABLE = "$PROVIDER_API_KEY"
MAX_SHOWN_BODY = 2000
"""Characters of a body in a curl command; a longer one is described."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """A request as it was sent.

    Attributes:
        headers: Without the key.
        key_header: Where the key stood, with the words before it; `None` if none was sent.
        body: Its bytes, `None` without one.
    """

    method: str
    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    key_header: tuple[str, str] | None = None
    body: bytes | None = None

    def curl(self) -> str:
        """The request as a command for a shell, with the key in a variable."""
        parts = ["curl -sN"]
        if self.method != "GET":
            parts.append(f"-X {self.method}")
        parts.append(shlex.quote(self.url))
        if self.key_header is not None:
            name, prefix = self.key_header
            parts.append(f'-H "{name}: {prefix}{KEY_VARIABLE}"')
        parts += [f"-H {shlex.quote(f'{name}: {value}')}" for name, value in self.headers.items()]
        if self.body is not None:
            parts.append(self._data())
        return " ".join(parts)

    def _data(self) -> str:
        body = self.body or b""
        text = body.decode(errors="replace")
        if len(text) <= MAX_SHOWN_BODY:
            return f"-d {shlex.quote(text)}"
        return f"-d @body.json  # {len(body)} bytes, beginning with {text[:80]!r}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """A whole answer.

    Attributes:
        headers: Names in lower case.
        arrivals: Seconds since the request was sent, and how many bytes of the body were there.
        total_s: Until the last byte.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes
    arrivals: tuple[tuple[float, int], ...] = ()
    total_s: float = 0.0

    def json(self) -> Any:  # JSON of any server
        """The body, parsed.

        Raises:
            Failed: It is not JSON.
        """
        try:
            return orjson.loads(self.body)
        except orjson.JSONDecodeError as error:
            raise Failed(f"the answer ({self.status}) is not JSON: {self.excerpt}") from error

    @property
    def excerpt(self) -> str:
        """Its beginning, for a reason."""
        text = self.body[:200].decode(errors="replace").strip()
        return text or "an empty body"
