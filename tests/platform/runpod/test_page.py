"""docs/deploy/runpod.md, as far as it can be checked without RunPod."""

import ast
import inspect
import json
import re
from typing import Any

import pytest
import runpod

from provider_runpod.shapes import read_job
from tests.platform.documents import files_of, read

SCRIPT = ast.parse(files_of("runpod")["deploy.py"])
CALLS = [
    node
    for node in ast.walk(SCRIPT)
    if isinstance(node, ast.Call) and ast.unparse(node.func).startswith("runpod.")
]
JOBS = re.findall(r"^\| `(\{.*?\})` \|", read("runpod"), re.MULTILINE)


@pytest.mark.parametrize("call", CALLS, ids=lambda call: ast.unparse(call.func))
def test_the_sdk_takes_the_calls_of_the_script(call: ast.Call) -> None:
    """Names of functions and arguments are those of the SDK that is installed."""
    function: Any = getattr(runpod, ast.unparse(call.func).removeprefix("runpod."))
    named = {keyword.arg: None for keyword in call.keywords if keyword.arg}
    inspect.signature(function).bind(*call.args, **named)


def test_the_script_makes_a_template_and_an_endpoint() -> None:
    """Nothing of it went unchecked."""
    assert len(CALLS) == 2


@pytest.mark.parametrize("shown", JOBS)
def test_every_shape_that_is_shown_is_taken(shown: str) -> None:
    """What stands for more is an object."""
    read_job(json.loads(shown.replace("{...}", "{}").replace("[...]", "[]")), default_model="m")


def test_four_shapes_are_shown() -> None:
    """So that none went unchecked."""
    assert len(JOBS) == 4
