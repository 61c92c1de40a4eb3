"""Tracebacks that may be logged: where and what, without the words of a request.

The message of an exception can hold anything: a decoder quotes the prompt, a template the message
it failed on. So a message is kept only where this program or the operating system wrote it.
"""

import traceback
from types import TracebackType

from provider_core.errors import ProviderError

_MAX_FRAMES = 20
_MAX_CHAIN = 5
_MAX_CHARACTERS = 8000  # container runtimes split lines at 16 KiB


def format_exception(error: BaseException) -> str:
    """Format an exception and what led to it, oldest first, without foreign messages."""
    blocks: list[str] = []
    current: BaseException | None = error
    while current is not None and len(blocks) < _MAX_CHAIN:
        blocks.append(_format_one(current))
        hides_context = current.__suppress_context__
        current = current.__cause__ or (None if hides_context else current.__context__)
    return "\n\n".join(reversed(blocks))[-_MAX_CHARACTERS:]


def describe(error: BaseException) -> str:
    """Name an exception, with its message if it is known to hold no client's text."""
    name = type(error).__qualname__
    match error:
        case ProviderError() if error.status >= 500:
            return f"{name}: {error.message}"
        case OSError():
            return f"{name}: {error.strerror}" if error.strerror else name
        case ImportError():
            return f"{name}: {error}"
        case BaseExceptionGroup():
            return f"{name}: " + "; ".join(describe(part) for part in error.exceptions[:5])
        case _:
            return name


def _format_one(error: BaseException) -> str:
    return f"Traceback (most recent call last):\n{_frames(error.__traceback__)}{describe(error)}"


def _frames(trace: TracebackType | None) -> str:
    return "".join(traceback.format_tb(trace, limit=-_MAX_FRAMES))
