"""What an invocation asks for, and what a batch transform is told."""

import pytest

from provider_sagemaker.shapes import batch_parameters, wants_stream


@pytest.mark.parametrize(
    ("route", "body", "expected"),
    [
        ("/v1/chat/completions", {"stream": True}, True),
        ("/v1/chat/completions", {"stream": "yes"}, False),
        ("/v1/chat/completions", [], False),
        ("/v1beta/models/m:streamGenerateContent", {}, True),
        ("/v1beta/models/m:streamGenerateContent?alt=sse", {}, True),
        ("/v1beta/models/m:generateContent?x=:streamGenerateContent", {}, False),
    ],
)
def test_a_stream_is_asked_for_in_the_body_or_in_the_path(
    route: str, body: object, *, expected: bool
) -> None:
    """It has the longer one of SageMaker's deadlines."""
    assert wants_stream(route, body) is expected


@pytest.mark.parametrize(
    ("num_slots", "max_body_bytes", "concurrency", "payload_mib"),
    [
        (4, 4 * 2**20, 4, 4),
        (256, 4 * 2**20, 25, 4),
        (256, 1024, 100, 1),
        (8, 60 * 2**20, 1, 60),
        (8, 512 * 2**20, 1, 100),
    ],
)
def test_a_batch_is_told_what_aws_takes(
    num_slots: int, max_body_bytes: int, concurrency: int, payload_mib: int
) -> None:
    """The product of both is 100 MB at most."""
    assert batch_parameters(num_slots, max_body_bytes) == {
        "MaxConcurrentTransforms": concurrency,
        "BatchStrategy": "SINGLE_RECORD",
        "MaxPayloadInMB": payload_mib,
    }
