"""Events as function URLs and API Gateway write them."""

import base64 as coding
from collections.abc import Mapping
from typing import Any


def url_event(
    method: str,
    path: str,
    headers: Mapping[str, str],
    body: str | None = None,
    *,
    query: str = "",
    stage: str = "$default",
) -> dict[str, Any]:
    """Version 2.0, of function URLs and HTTP APIs."""
    event: dict[str, Any] = {
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": path,
        "rawQueryString": query,
        "headers": {"host": "id.lambda-url.eu-west-1.on.aws", **headers},
        "requestContext": {
            "domainName": "id.lambda-url.eu-west-1.on.aws",
            "http": {"method": method, "path": path, "protocol": "HTTP/1.1", "sourceIp": "1.2.3.4"},
            "stage": stage,
        },
        "isBase64Encoded": False,
    }
    return event if body is None else {**event, "body": body}


def rest_event(
    method: str,
    path: str,
    headers: Mapping[str, str],
    body: str | None = None,
    *,
    query: Mapping[str, str] | None = None,
    base64: bool = False,
) -> dict[str, Any]:
    """Version 1.0, of REST APIs."""
    if body is not None and base64:
        body = coding.b64encode(body.encode()).decode()
    return {
        "resource": "/{proxy+}",
        "path": path,
        "httpMethod": method,
        "headers": dict(headers),
        "multiValueHeaders": {name: [value] for name, value in headers.items()},
        "queryStringParameters": query and dict(query),
        "multiValueQueryStringParameters": query
        and {name: [value] for name, value in query.items()},
        "requestContext": {"stage": "prod", "path": f"/prod{path}", "identity": {}},
        "body": body,
        "isBase64Encoded": base64,
    }
