"""What an invocation asks for: SageMaker has one path and strips nearly every header.

A caller's only channel beside the body is `X-Amzn-SageMaker-Custom-Attributes`, 1,024 visible
characters that are passed on as they are. Here they are pairs, `;` between them::

    route=/v1/messages;x-api-key=sk-...;x-request-id=42

`route` names the path, and wins over what the body looks like; the others are headers.
"""

from collections.abc import Mapping
from typing import Any

ATTRIBUTES = "X-Amzn-SageMaker-Custom-Attributes"
FORWARDED = frozenset(
    {
        "anthropic-version",
        "authorization",
        "idempotency-key",
        "x-api-key",
        "x-goog-api-key",
        "x-request-deadline-ms",
        "x-request-id",
        "x-session-id",
        "x-title",
    }
)
"""What attributes may set; whatever else they hold is somebody else's."""

_MAX_IN_FLIGHT_MIB = 100
"""Of all records at a time: `CreateTransformJob` refuses more (its `MaxPayloadInMB`)."""

_BY_FIELD = {
    "messages": "/v1/chat/completions",
    "prompt": "/v1/completions",
    "input": "/v1/embeddings",
    "query": "/v1/rerank",
}


class UnknownInvocation(ValueError):
    """Nothing says what an invocation asks for; the message is for the caller."""


def read_attributes(text: str | None) -> dict[str, str]:
    """Pairs by their names in lower case; text that is none, such as a caller's trace id, is left.

    Args:
        text: The header.
    """
    pairs = (part.partition("=") for part in (text or "").split(";"))
    return {name.strip().lower(): value.strip() for name, is_pair, value in pairs if is_pair}


def write_attributes(pairs: Mapping[str, str | None]) -> str:
    """The same for an answer, of those that have a value."""
    return ";".join(f"{name}={value}" for name, value in pairs.items() if value)


def find_route(attributes: Mapping[str, str], body: Any) -> str:
    """The path of the server that an invocation is for.

    Args:
        attributes: Of `read_attributes`.
        body: Parsed JSON, whatever it is.

    Raises:
        UnknownInvocation: It names none and looks like none.
    """
    route = attributes.get("route")
    if route is not None:
        if not route.startswith("/") or route.startswith("//"):
            raise UnknownInvocation(f"route must be a path such as {_BY_FIELD['messages']}")
        return route
    if isinstance(body, dict):
        for field, path in _BY_FIELD.items():
            if field in body:
                return path
    fields = ", ".join(_BY_FIELD)
    raise UnknownInvocation(f"the body has none of {fields}, and {ATTRIBUTES} names no route")


def wants_stream(route: str, body: Any) -> bool:
    """Whether the answer comes in pieces: Google's clients say so in the path."""
    if route.partition("?")[0].endswith(":streamGenerateContent"):
        return True
    return isinstance(body, dict) and body.get("stream") is True


def batch_parameters(num_slots: int, max_body_bytes: int) -> dict[str, int | str]:
    """How a batch transform should send its records.

    Args:
        num_slots: Requests that are generated at a time.
        max_body_bytes: The longest record.
    """
    payload_mib = min(max(max_body_bytes // 2**20, 1), _MAX_IN_FLIGHT_MIB)
    return {
        "MaxConcurrentTransforms": min(num_slots, _MAX_IN_FLIGHT_MIB // payload_mib),
        "BatchStrategy": "SINGLE_RECORD",
        "MaxPayloadInMB": payload_mib,
    }
