"""What the ingress makes of requests and of answers that do not come."""

import json
import subprocess
from typing import Any

import pytest

from tests.platform.ray.installed import MARKS, PYTHON, ROOT

pytestmark = list(MARKS)

Cases = dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def cases() -> Cases:
    """All of them, of one process that has Ray."""
    ran = subprocess.run(
        [PYTHON, ROOT / "tests/platform/ray/ingress_messages.py"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    found: Cases = json.loads(ran.stdout)
    return found


def test_an_answer_passes_with_its_own_headers(cases: Cases) -> None:
    """Those that Ray's proxy adds are not there twice, and are there where it is not."""
    for name in ("whole", "past the proxy"):
        case = cases[name]
        assert (case["status"], case["body"], case["is_complete"]) == (200, "data: 1\n\n", True)
        assert (case["is_cancelled"], case["is_closed"]) == ([False], [True])
    assert cases["whole"]["headers"] == [[["content-type", "text/event-stream"]]]
    assert cases["past the proxy"]["headers"] == [
        [["content-type", "text/event-stream"], ["x-request-id", "r"], ["server", "s"]]
    ]


def test_a_request_passes_as_it_was_sent(cases: Cases) -> None:
    """With whom the proxy saw last, and a body that is counted anew."""
    ((method, path, headers, body),) = cases["whole"]["calls"]
    assert (method, path, body) == ("POST", "/v1/%C3%BC?key=k", "abcd")
    assert [value for name, value in headers if name == "a"] == ["b"]
    assert [value for name, value in headers if name == "x-forwarded-for"] == [
        "198.51.100.7, 192.0.2.1"
    ]
    assert dict(headers)["x-request-id"] == "of-ray"
    assert "content-length" not in dict(headers)
    ((*_, headers, _),) = cases["past the proxy"]["calls"]
    assert "x-request-id" not in dict(headers)  # the server's to give


def test_a_body_is_read_up_to_what_the_server_refuses(cases: Cases) -> None:
    """One byte more than it may have."""
    ((_, _, _, body),) = cases["too large"]["calls"]
    assert body == "abcdefghi"


@pytest.mark.parametrize(
    ("name", "status", "code"),
    [
        ("full", 429, "overloaded"),
        ("lost before the head", 503, "replica_lost"),
        ("cancelled by Ray", 503, "replica_lost"),
    ],
)
def test_what_no_replica_answers_is_an_error(
    cases: Cases, name: str, status: int, code: str
) -> None:
    """That says when to try again."""
    case = cases[name]
    assert case["status"] == status
    assert json.loads(case["body"])["error"]["code"] == code
    assert ["retry-after", "1"] in case["headers"][0]
    assert case["is_complete"]


def test_a_stream_that_is_cut_ends_with_an_error(cases: Cases) -> None:
    """An event of its own, whatever the last one lacked."""
    case = cases["lost amid a stream"]
    assert case["body"].startswith("data: 1\n\nevent: error\ndata: ")
    assert json.loads(case["body"].rpartition("data: ")[2])["error"]["code"] == "replica_lost"
    assert case["is_complete"]
    assert case["body"].endswith("\n\n")


def test_half_a_document_does_not_look_whole(cases: Cases) -> None:
    """The connection breaks, short of the length that was told."""
    case = cases["lost amid a document"]
    assert ["content-length", "10"] in case["headers"][0]
    assert case["raised"]
    assert not case["is_complete"]


def test_a_client_that_leaves_early_is_not_asked_for(cases: Cases) -> None:
    """No replica hears of it."""
    assert cases["client left"]["calls"] == []


@pytest.mark.parametrize("name", ["client left before the head", "client left amid a stream"])
def test_a_client_that_leaves_is_one_that_left(cases: Cases, name: str) -> None:
    """To the replica's server, too; and Ray is told, which may not have chosen a replica yet."""
    case = cases[name]
    assert (case["is_cancelled"], case["is_closed"]) == ([True], [True])
    assert not case["is_complete"]
