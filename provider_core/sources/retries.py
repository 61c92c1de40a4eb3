"""How often and how soon a source is asked again."""

from collections.abc import Iterator
from contextlib import AbstractContextManager

from provider_core.sources.remote import SourceUnavailable

NUM_ATTEMPTS = 8
"""With waits of a quarter of a second to ten: about half a minute."""


def retrying(num_attempts: int = NUM_ATTEMPTS) -> Iterator[AbstractContextManager[object]]:
    """Attempts at something that may raise `SourceUnavailable`; the last one lets it out."""
    import stamina  # noqa: PLC0415 - a model that is here needs no retries at its start

    yield from stamina.retry_context(
        on=SourceUnavailable,
        attempts=num_attempts,
        timeout=None,
        wait_initial=0.25,
        wait_max=10.0,
    )
