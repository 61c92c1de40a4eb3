"""docs/deploy/lambda.md, as far as it can be checked without AWS."""

import json

import pytest
from botocore.session import Session
from botocore.validate import ParamValidator

from tests.platform.documents import commands_of, files_of

FILES = files_of("lambda")


@pytest.mark.parametrize(
    ("file", "operation"),
    [("function.json", "CreateFunction"), ("url.json", "CreateFunctionUrlConfig")],
)
def test_the_documents_are_what_the_api_takes(file: str, operation: str) -> None:
    """By AWS's own description of it."""
    service = Session().get_service_model("lambda")
    report = ParamValidator().validate(
        json.loads(FILES[file]), service.operation_model(operation).input_shape
    )
    assert report.generate_report() == ""


def test_every_file_that_is_used_is_shown() -> None:
    """And every file that is shown is used."""
    assert all(name in " ".join(commands_of("lambda")) for name in FILES)
    assert set(FILES) == {"function.json", "url.json"}
