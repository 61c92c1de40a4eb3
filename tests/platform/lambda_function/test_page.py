"""docs/deploy/lambda.md, as far as it can be checked without AWS."""

import json

import pytest
from botocore.session import Session
from botocore.validate import ParamValidator

from tests.platform.documents import MAX_COMMANDS, commands_of, files_of

FILES = files_of("lambda.md")


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
    """From nothing to a streamed answer, in ten commands at most."""
    commands = commands_of("lambda.md")
    assert len(commands) <= MAX_COMMANDS
    assert all(name in " ".join(commands) for name in FILES)
    assert set(FILES) == {"function.json", "url.json"}
