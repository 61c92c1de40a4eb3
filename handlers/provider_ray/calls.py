"""What passes between the ingress and a replica: a request, and the head of its answer."""

from dataclasses import dataclass

Headers = tuple[tuple[str, str], ...]

_HOP_BY_HOP = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A request.

    Attributes:
        method: Of HTTP.
        path: With its query, as it was sent.
        headers: For the server.
        body: Whole, or as much of it as the server needs to see that it is too large.
        prefix_keys: Beginnings of its prompt, the shortest first.
    """

    method: str
    path: str
    headers: Headers
    body: bytes
    prefix_keys: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class Head:
    """How an answer begins; pieces of its body follow."""

    status: int
    headers: Headers


def end_to_end(headers: Headers) -> Headers:
    """Headers without those that are of one connection only."""
    return tuple((name, value) for name, value in headers if name.lower() not in _HOP_BY_HOP)
