"""What to say when the extra is not installed."""

from collections.abc import Iterator
from contextlib import contextmanager

from provider_core import ConfigurationError


@contextmanager
def needing_extra(uri: str) -> Iterator[None]:
    """Turn a failing import into a sentence that helps.

    Raises:
        ConfigurationError: A package is not there.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"{uri} needs the package {error.name}: pip install 'provider-core[aws]'"
        ) from error
