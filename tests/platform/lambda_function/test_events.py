"""Events of Lambda as requests, and answers as Lambda wants them."""

import base64
import json
from typing import Any

import pytest

from provider_lambda.events import (
    EventCall,
    UnknownEvent,
    read_event,
    write_answer,
    write_prelude,
)
from tests.platform.lambda_function.http_events import rest_event, url_event


@pytest.mark.parametrize(
    ("event", "path"),
    [
        (url_event("GET", "/v1/models", {}), "/v1/models"),
        (url_event("GET", "/v1/models", {}, query="a=b%20c&a=d"), "/v1/models?a=b%20c&a=d"),
        (url_event("GET", "/", {}), "/"),
        (url_event("GET", "/api/v1/models/ä b/c", {}), "/api/v1/models/%C3%A4%20b/c"),
        (
            url_event("POST", "/v1beta/models/m:generateContent", {}),
            "/v1beta/models/m:generateContent",
        ),
        (url_event("GET", "/prod/v1/models", {}, stage="prod"), "/v1/models"),
        (url_event("GET", "/prod", {}, stage="prod"), "/"),
        (url_event("GET", "/production/x", {}, stage="prod"), "/production/x"),
        (url_event("GET", "//evil/v1", {}), "/evil/v1"),
        (rest_event("GET", "/v1/models", {}, query={"a b": "c&d"}), "/v1/models?a+b=c%26d"),
    ],
)
def test_paths_are_those_that_the_caller_asked_for(event: dict[str, Any], path: str) -> None:
    """Without the stage, and escaped."""
    assert read_event(event).path == path


def test_headers_are_the_caller_s_and_not_a_connection_s() -> None:
    """In lower case; several values of one name are one."""
    event = rest_event("POST", "/x", {"X-Title": "t", "Content-Length": "3", "Host": "h"})
    event["multiValueHeaders"]["X-Many"] = ["a", "b"]
    assert read_event(event).headers == {"x-title": "t", "x-many": "a, b"}


def test_a_signature_of_aws_is_no_key() -> None:
    """The door has checked it; a key comes in another header."""
    headers = {"Authorization": "AWS4-HMAC-SHA256 Credential=a", "x-api-key": "sk-1"}
    assert read_event(url_event("GET", "/x", headers)).headers == {"x-api-key": "sk-1"}


@pytest.mark.parametrize("is_base64", [True, False])
def test_bodies_are_bytes(*, is_base64: bool) -> None:
    """Lambda writes what is no text in base64."""
    event = rest_event("POST", "/x", {}, '{"a": "ä"}', base64=is_base64)
    assert read_event(event) == EventCall("POST", "/x", {}, '{"a": "ä"}'.encode())


@pytest.mark.parametrize(
    "event",
    [
        None,
        [],
        {},
        {"Records": [{"body": "x"}]},
        {"requestContext": {"http": {"method": "GET"}}},
        {"requestContext": {"http": {}}, "rawPath": "/"},
        {"requestContext": "x", "httpMethod": "GET"},
        {"httpMethod": "GET", "path": 3},
        {**rest_event("GET", "/x", {}), "httpMethod": None},
        {**rest_event("GET", "/x", {}), "httpMethod": ["GET"]},
        {**url_event("GET", "/x", {}), "rawPath": ["/x"]},
        {**url_event("GET", "/x", {}), "rawQueryString": {"a": "b"}},
        {**url_event("GET", "/x", {}), "requestContext": {"http": {"method": None}}},
        {**rest_event("POST", "/x", {}, "x"), "isBase64Encoded": True},
        {**rest_event("POST", "/x", {}), "body": {"a": 1}},
        {**url_event("POST", "/x", {}), "headers": {"authorization": 3}},
    ],
)
def test_whatever_is_no_request_is_refused(event: object) -> None:
    """And never half understood."""
    with pytest.raises(UnknownEvent):
        read_event(event)


def test_a_prelude_is_json_and_eight_zeros() -> None:
    """Headers of a connection stay; several of one name are one."""
    headers = [
        ("Content-Type", "text/plain"),
        ("Vary", "a"),
        ("Vary", "b"),
        ("Connection", "close"),
    ]
    prelude = write_prelude(429, headers)
    assert prelude.endswith(b"}" + bytes(8))
    assert json.loads(prelude[:-8]) == {
        "statusCode": 429,
        "headers": {"Content-Type": "text/plain", "Vary": "a, b"},
    }


@pytest.mark.parametrize(
    ("body", "text", "is_base64"),
    [("ä".encode(), "ä", False), (b"\xff\x00", base64.b64encode(b"\xff\x00").decode(), True)],
)
def test_a_whole_answer_is_one_document(body: bytes, text: str, *, is_base64: bool) -> None:
    """Bytes that are no text go in base64."""
    assert json.loads(write_answer(200, [("A", "b")], body)) == {
        "statusCode": 200,
        "headers": {"A": "b"},
        "body": text,
        "isBase64Encoded": is_base64,
    }
