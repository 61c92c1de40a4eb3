"""One AWS for the folder's tests; sources are asked again at once."""

from collections.abc import Iterator

import pytest
import stamina

from provider_core.sources.retries import NUM_ATTEMPTS
from tests.moto_aws import moto_server


@pytest.fixture(scope="session")
def aws_port() -> Iterator[int]:
    """Of moto's server."""
    with moto_server() as port:
        yield port


@pytest.fixture(autouse=True)
def _no_waiting() -> Iterator[None]:
    """As often as ever, without the waits in between."""
    stamina.set_testing(True, attempts=NUM_ATTEMPTS, cap=True)
    yield
    stamina.set_testing(False)
