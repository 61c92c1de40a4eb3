"""Secrets of AWS: read, picked apart, and never told."""

import json
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

import provider_aws
from provider_aws import stored_secrets
from provider_core import hookspecs
from provider_core.errors import ConfigurationError, SecretNotFound
from provider_core.plugins import PluginManager
from tests.moto_aws import REGION, aws_client, use_aws

CANARY = "canary-of-the-vault"


@pytest.fixture(autouse=True)
def _aws(aws_port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_aws(monkeypatch, aws_port, tmp_path / "home")


@pytest.fixture
def _new_client() -> Iterator[None]:
    """One that is made in the environment of the test."""
    stored_secrets.make_client.cache_clear()
    yield
    stored_secrets.make_client.cache_clear()


@pytest.fixture
def name(aws_port: int) -> str:
    """Of a secret with two keys in it."""
    name = f"prod/keys-{uuid4()}"
    value = json.dumps({"current": f" {CANARY}\n", "previous": "before", "number": 5})
    aws_client("secretsmanager", aws_port).create_secret(Name=name, SecretString=value)
    return name


def load(uri: str) -> bytes | None:
    """As the core asks."""
    plugins = PluginManager()
    plugins.register(provider_aws, "aws")
    return plugins.first(hookspecs.load_secret, uri=uri)


def test_load_secret_picks_a_key(name: str) -> None:
    """To the byte."""
    assert load(f"aws-sm://{name}#current") == f" {CANARY}\n".encode()
    assert load(f"aws-sm://{name}#previous") == b"before"


def test_load_secret_reads_whole_secrets(aws_port: int) -> None:
    """Text and bytes, by name and by ARN; others are nobody's business."""
    client = aws_client("secretsmanager", aws_port)
    text, binary = f"text-{uuid4()}", f"binary-{uuid4()}"
    arn = client.create_secret(Name=text, SecretString=f"{CANARY}\n")["ARN"]
    client.create_secret(Name=binary, SecretBinary=bytes(range(128, 160)))
    assert load(f"aws-sm://{text}") == load(f"aws-sm://{arn}") == f"{CANARY}\n".encode()
    assert load(f"aws-sm://{binary}") == bytes(range(128, 160))
    assert load("vault://elsewhere") is None


def test_load_secret_reads_parameters(aws_port: int) -> None:
    """Encrypted ones, too; a name may begin with a slash."""
    client = aws_client("ssm", aws_port)
    client.put_parameter(Name="/prod/pepper", Value=CANARY, Type="SecureString")
    client.put_parameter(Name="plain", Value="value", Type="String")
    assert load("aws-ssm:///prod/pepper") == CANARY.encode()
    assert load("aws-ssm://plain") == b"value"


def test_a_rotated_secret_is_read_anew(name: str, aws_port: int) -> None:
    """Nothing of it is remembered."""
    assert CANARY.encode() in (load(f"aws-sm://{name}#current") or b"")
    client = aws_client("secretsmanager", aws_port)
    client.put_secret_value(SecretId=name, SecretString='{"current": "the next one"}')
    assert load(f"aws-sm://{name}#current") == b"the next one"


@pytest.mark.parametrize(
    ("uri", "problem"),
    [
        ("aws-sm://absent", "there is no such secret in eu-central-1"),
        ("aws-ssm://absent", "there is no such parameter in eu-central-1"),
        ("aws-sm://{name}#absent", "no object with a text of that key"),
        ("aws-sm://{name}#number", "no object with a text of that key"),
        ("aws-sm://{text}#key", "the secret is not JSON"),
        ("aws-sm://", "it names no secret"),
        ("aws-ssm:///", "it names no secret"),
    ],
)
def test_what_cannot_be_had_is_said(name: str, aws_port: int, uri: str, problem: str) -> None:
    """By its name, and with no byte of what is there."""
    text = f"text-{uuid4()}"
    aws_client("secretsmanager", aws_port).create_secret(Name=text, SecretString=f"{{{CANARY}")
    asked = uri.format(name=name, text=text)
    with pytest.raises(ConfigurationError, match=problem) as failure:
        load(asked)
    assert str(failure.value).startswith(f"{asked}: ")
    assert isinstance(failure.value, SecretNotFound) == ("names no secret" not in problem)
    assert CANARY not in "".join(traceback.format_exception(failure.value))


@pytest.mark.usefixtures("_new_client")
def test_an_aws_that_does_not_answer_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a few attempts, by the kind of failure alone."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setattr(time, "sleep", lambda _: None)
    with pytest.raises(
        ConfigurationError, match=r"cannot be asked in .*: EndpointConnectionError"
    ) as failure:
        load("aws-sm://any")
    assert not isinstance(failure.value, SecretNotFound)


@pytest.mark.usefixtures("_new_client")
def test_nobody_to_be_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No credentials, and no region."""
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    with pytest.raises(ConfigurationError, match="NoCredentialsError"):
        load("aws-sm://any")
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    stored_secrets.make_client.cache_clear()
    with pytest.raises(ConfigurationError, match="specify a region"):
        load("aws-sm://any")


@pytest.mark.usefixtures("_new_client")
def test_the_region_is_the_one_that_every_tool_of_aws_reads(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lambda, for one, sets this variable."""
    monkeypatch.setenv("AWS_REGION", REGION)
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    assert load(f"aws-sm://{name}#previous") == b"before"
    assert stored_secrets.make_client("secretsmanager").meta.region_name == REGION
