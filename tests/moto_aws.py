"""AWS on loopback: moto's server, and credentials that it takes."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import botocore.session
import pytest
from moto.server import ThreadedMotoServer

REGION = "eu-central-1"


@contextmanager
def moto_server() -> Iterator[int]:
    """Serve every service on one free port."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        yield server.get_host_and_port()[1]
    finally:
        server.stop()


def use_aws(monkeypatch: pytest.MonkeyPatch, port: int, home: Path) -> None:
    """Send all that speaks to AWS to a port, as nobody in particular."""
    for name, value in environment(port, home).items():
        monkeypatch.setenv(name, value)


def environment(port: int, home: Path) -> dict[str, str]:
    """What a process needs for that."""
    return {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": REGION,
        "AWS_EC2_METADATA_DISABLED": "true",
        "HOME": str(home),
    }


@cache
def aws_client(service: str, port: int) -> Any:  # made at run time from AWS' descriptions
    """A client of the server itself, to put into it what a test needs."""
    return botocore.session.get_session().create_client(
        service,
        endpoint_url=f"http://127.0.0.1:{port}",
        region_name=REGION,
        aws_access_key_id="testing",
        aws_secret_access_key="testing",
    )
