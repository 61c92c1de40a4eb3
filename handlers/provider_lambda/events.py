"""Invocations as HTTP requests, and answers as Lambda wants them; nothing here does I/O.

Two forms of event are HTTP: version 2.0, of function URLs and API Gateway's HTTP APIs, and version
1.0, of API Gateway's REST APIs. Answers go back whole, as one JSON document, or as a stream that a
prelude opens: status and headers in JSON, then eight zero bytes.
"""

import base64
import binascii
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

PRELUDE_END = bytes(8)
_PATH_CHARACTERS = "/%:@!$&'()*+,;=~"
_OF_THE_CONNECTION = frozenset(
    {
        "connection",
        "content-length",
        "expect",
        "host",
        "keep-alive",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
_SIGNATURE = "AWS4-HMAC-SHA256"


class UnknownEvent(ValueError):
    """An event is no HTTP request."""


@dataclass(frozen=True, slots=True)
class EventCall:
    """One request of the server.

    Attributes:
        path: With the query.
        headers: Without those of a connection.
    """

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes | None


def read_event(event: object) -> EventCall:
    """Read an invocation's event.

    Raises:
        UnknownEvent: It is of neither form.
    """
    if not isinstance(event, dict):
        raise UnknownEvent(f"the event is {_kind(event)}, not an object")
    context = event.get("requestContext")
    context = context if isinstance(context, dict) else {}
    http = context.get("http")
    try:
        if isinstance(http, dict):
            path = _without_stage(_text(event["rawPath"]), context.get("stage"))
            query = _text(event.get("rawQueryString") or "")
            method = _text(http["method"])
            return EventCall(method, _join(path, query), _headers(event), _body(event))
        if "httpMethod" in event:
            path = _join(_text(event["path"]), urlencode(list(_query_pairs(event))))
            return EventCall(_text(event["httpMethod"]), path, _headers(event), _body(event))
    except (KeyError, TypeError, AttributeError, binascii.Error) as error:
        raise UnknownEvent(f"the event is malformed: {type(error).__name__} {error}") from None
    raise UnknownEvent("the event comes from no function URL and no API Gateway")


def write_prelude(status: int, headers: Iterable[tuple[str, str]]) -> bytes:
    """What opens a streamed answer."""
    prelude = {"statusCode": status, "headers": _answer_headers(headers)}
    return json.dumps(prelude).encode() + PRELUDE_END


def write_answer(status: int, headers: Iterable[tuple[str, str]], body: bytes) -> bytes:
    """A whole answer; a body that is no UTF-8 goes in base64."""
    try:
        text, is_base64 = body.decode(), False
    except UnicodeDecodeError:
        text, is_base64 = base64.b64encode(body).decode(), True
    answer = {
        "statusCode": status,
        "headers": _answer_headers(headers),
        "body": text,
        "isBase64Encoded": is_base64,
    }
    return json.dumps(answer).encode()


def _headers(event: Mapping[str, Any]) -> dict[str, str]:
    """An event's headers; a signature of AWS is no key of ours, and has been checked."""
    several = event.get("multiValueHeaders")
    if several:
        headers = {name.lower(): ", ".join(values) for name, values in several.items()}
    else:
        headers = {name.lower(): value for name, value in (event.get("headers") or {}).items()}
    if headers.get("authorization", "").startswith(_SIGNATURE):
        del headers["authorization"]
    return {name: value for name, value in headers.items() if name not in _OF_THE_CONNECTION}


def _body(event: Mapping[str, Any]) -> bytes | None:
    body = event.get("body")
    if body is None:
        return None
    return base64.b64decode(body) if event.get("isBase64Encoded") else body.encode()


def _query_pairs(event: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    several = event.get("multiValueQueryStringParameters")
    if several:
        for name, values in several.items():
            yield from ((name, value) for value in values)
    else:
        yield from (event.get("queryStringParameters") or {}).items()


def _without_stage(path: str, stage: str | None) -> str:
    """An HTTP API's path begins with its stage, unless that is the default."""
    prefix = f"/{stage}"
    has_stage = stage not in {None, "$default"} and f"{path}/".startswith(f"{prefix}/")
    return path[len(prefix) :] or "/" if has_stage else path


def _join(path: str, query: str) -> str:
    path = quote(f"/{path.lstrip('/')}", safe=_PATH_CHARACTERS)
    return f"{path}?{query}" if query else path


def _answer_headers(headers: Iterable[tuple[str, str]]) -> dict[str, str]:
    joined: dict[str, str] = {}
    for name, value in headers:
        if name.lower() not in _OF_THE_CONNECTION:
            joined[name] = f"{joined[name]}, {value}" if name in joined else value
    return joined


def _text(value: object) -> str:
    """What must be text: whoever may invoke the function by hand may write anything there."""
    if not isinstance(value, str):
        raise TypeError(f"{_kind(value)} in place of text")
    return value


def _kind(value: object) -> str:
    return type(value).__name__
