"""docs/deploy/sagemaker.md, as far as it can be checked without AWS."""

import json

import pytest
from botocore.session import Session
from botocore.validate import ParamValidator

from tests.platform.documents import commands_of, files_of

FILES = files_of("sagemaker")


@pytest.mark.parametrize(
    ("file", "operation"), [("model.json", "CreateModel"), ("config.json", "CreateEndpointConfig")]
)
def test_the_documents_are_what_the_api_takes(file: str, operation: str) -> None:
    """By AWS's own description of it."""
    service = Session().get_service_model("sagemaker")
    report = ParamValidator().validate(
        json.loads(FILES[file]), service.operation_model(operation).input_shape
    )
    assert report.generate_report() == ""


def test_every_file_that_is_used_is_shown() -> None:
    """And every file that is shown is used."""
    assert all(name in " ".join(commands_of("sagemaker")) for name in FILES)
    assert set(FILES) == {"model.json", "config.json", "ask.py"}
    compile(FILES["ask.py"], "ask.py", "exec")
