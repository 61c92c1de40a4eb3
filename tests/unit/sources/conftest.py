"""Sources are asked again at once."""

from collections.abc import Iterator

import pytest
import stamina

from provider_core.sources.retries import NUM_ATTEMPTS


@pytest.fixture(autouse=True)
def _no_waiting() -> Iterator[None]:
    """As often as ever, without the waits in between."""
    stamina.set_testing(True, attempts=NUM_ATTEMPTS, cap=True)
    yield
    stamina.set_testing(False)
