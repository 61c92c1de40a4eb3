"""Secrets of Secrets Manager and of Systems Manager's Parameter Store.

botocore is what boto3 is made of, and all that is needed of it. No message holds a byte of a
secret, and no exception of botocore's goes on, whose text might.
"""

import json
from collections.abc import Callable
from functools import cache
from typing import Any

from provider_aws.missing_packages import needing_extra
from provider_aws.sessions import open_session
from provider_core import ConfigurationError, SecretNotFound

_REASONS = {
    "AccessDeniedException": "the role may not read it: it needs {permission}",
    "DecryptionFailure": "its KMS key cannot be used by this role",
    "ExpiredTokenException": "the credentials have expired",
    "InvalidRequestException": "it is marked for deletion, or has no value yet",
    "ParameterNotFound": "there is no such parameter in {region}",
    "ParameterVersionNotFound": "it has no such version",
    "ResourceNotFoundException": "there is no such secret in {region}",
    "UnrecognizedClientException": "the credentials are not valid",
}
_ABSENT = {
    "InvalidRequestException",
    "ParameterNotFound",
    "ParameterVersionNotFound",
    "ResourceNotFoundException",
}
_TIMEOUT_S = 5


def read_secret(uri: str) -> bytes:
    """Read a secret.

    Args:
        uri: `aws-sm://` and a secret's name or ARN, maybe with `#` and a key of the JSON object in
            it; or `aws-ssm://` and a parameter's name, whose leading `/` is part of it.

    Returns:
        The value, to the byte.

    Raises:
        SecretNotFound: It is not there.
        ConfigurationError: It cannot be had.
    """
    scheme, _, rest = uri.partition("://")
    if not rest.strip("/"):
        raise ConfigurationError(f"{uri}: it names no secret")
    with needing_extra(uri):
        if scheme == "aws-ssm":
            return _read_parameter(uri, rest)
        name, _, key = rest.partition("#")
        value = _read_managed(uri, name)
    return _value_of(uri, value, key) if key else value


def _read_managed(uri: str, name: str) -> bytes:
    client = make_client("secretsmanager")
    answer = _ask(
        uri,
        client.meta.region_name,
        "secretsmanager:GetSecretValue",
        lambda: client.get_secret_value(SecretId=name),
    )
    text: str | None = answer.get("SecretString")
    binary: bytes = answer.get("SecretBinary", b"")
    return binary if text is None else text.encode()


def _read_parameter(uri: str, name: str) -> bytes:
    client = make_client("ssm")
    answer = _ask(
        uri,
        client.meta.region_name,
        "ssm:GetParameter",
        lambda: client.get_parameter(Name=name, WithDecryption=True),
    )
    value: str = answer["Parameter"]["Value"]
    return value.encode()


def _value_of(uri: str, secret: bytes, key: str) -> bytes:
    """A value of the JSON object that a secret is."""
    try:
        fields = json.loads(secret)
    except ValueError:
        raise SecretNotFound(f"{uri}: the secret is not JSON") from None
    value = fields.get(key) if isinstance(fields, dict) else None
    if not isinstance(value, str):
        raise SecretNotFound(f"{uri}: the secret is no object with a text of that key")
    return value.encode()


def _ask(uri: str, region: str, permission: str, call: Callable[[], Any]) -> Any:
    """Make a call of botocore, whose answers have no types.

    Raises:
        SecretNotFound: AWS says that it is not there.
        ConfigurationError: It fails; the message says why in words, and nothing of the answer.
    """
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        return call()
    except ClientError as error:
        code = error.response.get("Error", {}).get("Code", "")
        reason = _REASONS.get(code, f"AWS answered {code}")
        reason = reason.format(permission=permission, region=region)
        if code in _ABSENT:
            raise SecretNotFound(f"{uri}: {reason}") from None
    except BotoCoreError as error:  # no credentials, no answer, a malformed name
        reason = f"AWS cannot be asked in {region}: {type(error).__name__}"
    raise ConfigurationError(f"{uri}: {reason}")


@cache
def make_client(service: str) -> Any:  # made at run time from AWS' descriptions
    """A client of a service, kept: making one takes 0.1 s, and keys are read again and again."""
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError

    config = Config(
        connect_timeout=_TIMEOUT_S,
        read_timeout=_TIMEOUT_S,
        retries={"mode": "standard", "total_max_attempts": 4},
    )
    try:
        return open_session().create_client(service, config=config)
    except BotoCoreError as error:  # no region
        raise ConfigurationError(f"AWS: {error}") from None
