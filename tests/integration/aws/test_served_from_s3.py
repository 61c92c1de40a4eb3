"""A whole server whose model and keys are in AWS: fetched, followed, and asked."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import requests

import provider_starter
from tests.moto_aws import aws_client, environment
from tests.scripted_store import sums_of

MODEL = Path(provider_starter.__file__).parent / "model"
KEY = "sk-canary-of-the-vault"
WAIT_S = 40


@pytest.fixture(scope="module")
def lines(aws_port: int, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """What a server logs that was asked for one answer."""
    folder = tmp_path_factory.mktemp("server")
    files = {path.name: path.read_bytes() for path in MODEL.iterdir()}
    s3 = aws_client("s3", aws_port)
    place = {"LocationConstraint": "eu-central-1"}
    s3.create_bucket(Bucket="served", CreateBucketConfiguration=place)
    for name, content in {**files, "SHA256SUMS": sums_of(files)}.items():
        s3.put_object(Bucket="served", Key=f"models/starter/{name}", Body=content)
    aws_client("secretsmanager", aws_port).create_secret(Name="key", SecretString=f"{KEY}\n")
    env = {**environment(aws_port, folder), "PROVIDER_API_KEY": "aws-sm://key"}
    options = ["--model", "s3://served/models/starter", "--port", "0", "--data-dir", str(folder)]
    server = subprocess.Popen(
        [sys.executable, "-c", "from provider_core.cli import main; main()", "serve", *options],
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert server.stderr is not None
    try:
        greeting = next(line for line in server.stderr if "listens on" in line)
        body = {"model": "starter", "prompt": "Once", "max_tokens": 4}
        headers = {"Authorization": f"Bearer {KEY}"}
        url = f"{greeting.split()[-1]}/v1/completions"
        answer = requests.post(url, json=body, headers=headers, timeout=WAIT_S)
        assert answer.status_code == 200
        server.terminate()
        out, err = server.communicate(timeout=WAIT_S)
    finally:
        server.kill()
        server.communicate()
    return [*out.splitlines(), greeting, *err.splitlines()]


def event(lines: list[str], name: str) -> dict[str, Any]:
    """The line of an event."""
    found = (json.loads(line) for line in lines if line.startswith("{"))
    return next(line for line in found if line["event"] == name)


def test_the_start_says_how_long_fetching_took(lines: list[str]) -> None:
    """Beside the other phases."""
    ready = event(lines, "server.ready")
    assert ready["models"] == ["starter"]
    assert 0 < ready["fetch_ms"] < ready["total_ms"]


def test_what_was_fetched_is_logged(lines: list[str]) -> None:
    """With its size, and where it is."""
    fetched = event(lines, "model.fetched")
    assert fetched["source"] == "s3://served/models/starter"
    assert fetched["bytes"] == sum(path.stat().st_size for path in MODEL.iterdir())
    assert Path(fetched["folder"], "model.onnx").read_bytes() == (MODEL / "model.onnx").read_bytes()


def test_the_answer_is_billed_to_the_key_of_the_vault(lines: list[str]) -> None:
    """By its name; its bytes are nowhere."""
    assert event(lines, "usage.final")["api_key_id"] == "key_fixed"
    assert not any(KEY in line for line in lines)
