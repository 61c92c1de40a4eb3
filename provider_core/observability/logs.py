"""Logging: structlog in, one ASCII JSON object a line out, written by a thread of its own.

`event` is a fixed `noun.verb`, everything else is a key. Prompts, completions and keys are never
logged at any level: what other libraries log is reduced to where it came from and its constant
part, and of exceptions only those messages are kept that cannot quote a request.

Nothing here happens on import; an entry point calls `start_logging` once.
"""

import logging
import os
import re
import sys
import threading
import time
from collections.abc import Mapping, MutableMapping
from functools import partial
from typing import Any

import structlog

from provider_core.errors import ConfigurationError
from provider_core.json_lines import encode_line, format_timestamp, sanitize
from provider_core.observability.line_writer import LineWriter
from provider_core.observability.pretty import PrettyLines
from provider_core.observability.tracebacks import describe, format_exception
from provider_core.settings import LoggingSettings

EventDict = MutableMapping[str, Any]  # structlog's; values are whatever a caller logs

_CLIENT_CLOSED = 499  # nginx's number for a client that left before the answer
_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}
_TRUSTED_LOGGERS = ("aiohttp", "asyncio")  # their messages begin with a constant line
_VALUE = re.compile(r"[^\w .,:;!%/-]", re.ASCII)
_log = structlog.get_logger("provider_core.access_log")


def start_logging(settings: LoggingSettings, fd: int | None = None) -> LineWriter:
    """Configure logging of this process. For entry points.

    Args:
        settings: Level and format.
        fd: Where lines go; `None` means standard output.

    Returns:
        The writer of all lines. Give it to the ledger as its sink; `close` it last.

    Raises:
        ConfigurationError: There is no standard output, and its number may be any file's by now.
    """
    if fd is None:
        if sys.stdout is None:
            raise ConfigurationError("standard output is closed; logs and bills go there")
        fd = sys.stdout.fileno()
    is_pretty = settings.format == "pretty" or (settings.format == "auto" and os.isatty(fd))
    writer = LineWriter(fd, render=PrettyLines(colors=os.isatty(fd)) if is_pretty else bytes)
    level = _LEVELS[settings.level]
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            partial(_count_warnings, writer),
            _add_exception,
            _encode,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=lambda *_: _LineLogger(writer),
        # A cached logger would go on writing to the writer of a server that is closed.
        cache_logger_on_first_use=False,
    )
    root = logging.getLogger()
    root.handlers = [_StandardLibraryHandler()]
    root.setLevel(max(level, logging.WARNING))
    threading.excepthook = _log_thread_failure
    sys.unraisablehook = _log_unraisable
    return writer


def log_access(
    *,
    method: str,
    path: str,
    http_status: int,
    request_id: str,
    latency_ms: float,
    num_sent_bytes: int,
    api_key_id: str | None = None,
    stream: bool = False,
    error_code: str | None = None,
    usage_event: Mapping[str, object] | None = None,
    model: str | None = None,
    user_id: str | None = None,
) -> None:
    """Write the `request.access` line of one HTTP request.

    Args:
        method: The request's.
        path: The route's template, never the raw path, which may hold a secret.
        http_status: Of the answer; 499 if the client left before it.
        request_id: Of this request.
        latency_ms: From the first byte in to the last byte out.
        num_sent_bytes: Of the body.
        api_key_id: Public id of the key, `None` if there was none.
        stream: Whether the answer was streamed.
        error_code: Of the error that was answered.
        usage_event: The event of the generation, whose numbers this line repeats; `None` if
            nothing was admitted.
        model: Id of the model for requests that were refused.
        user_id: As the client sent it, for requests that were refused.
    """
    usage = usage_event or {}
    _log.info(
        "request.access",
        generation_id=usage.get("generation_id"),
        model=usage["model"] if "model" in usage else _clean(model, 256),
        latency_ms=round(latency_ms, 3),
        prompt_tokens=usage.get("prompt_tokens", 0),
        completion_tokens=usage.get("completion_tokens", 0),
        cost=usage.get("cost", "0"),
        status=usage.get("status") or _status_word(http_status),
        user_id=usage["user_id"] if "user_id" in usage else _clean(user_id, 128),
        method=sanitize(method, 16),
        path=path,
        http_status=http_status,
        request_id=request_id,
        api_key_id=api_key_id,
        sent_bytes=num_sent_bytes,
        stream=stream,
        error_code=error_code,
    )


def _status_word(http_status: int) -> str:
    if http_status == _CLIENT_CLOSED:
        return "cancelled"
    return "ok" if http_status < 400 else "error"


def _clean(text: str | None, max_bytes: int) -> str | None:
    return None if text is None else sanitize(text, max_bytes)


def _count_warnings(
    writer: LineWriter, _logger: object, _name: str, event_dict: EventDict
) -> EventDict:
    """Have an event at `warning` or above counted; a structlog processor."""
    if event_dict["level"] not in ("debug", "info"):
        writer.count_warning(event_dict["event"])
    return event_dict


def _add_exception(_logger: object, _name: str, event_dict: EventDict) -> EventDict:
    """Turn `exc_info` into `exception` and `exception_type`; a structlog processor."""
    info = event_dict.pop("exc_info", None)
    if info is True:
        info = sys.exc_info()[1]
    elif isinstance(info, tuple):
        info = info[1]
    if isinstance(info, BaseException):
        event_dict["exception_type"] = type(info).__qualname__
        event_dict["exception"] = format_exception(info)
    return event_dict


def _encode(_logger: object, _name: str, event_dict: EventDict) -> bytes:
    """Write the line, its name and time first; the last structlog processor."""
    line: dict[str, object] = {
        "event": event_dict.pop("event"),
        "timestamp": format_timestamp(time.time()),
    }
    for name, value in event_dict.items():
        line[name] = describe(value) if isinstance(value, BaseException) else value
    return encode_line(line)


class _LineLogger:
    """What structlog calls with a finished line."""

    def __init__(self, writer: LineWriter) -> None:
        self.debug = self.info = self.warning = self.error = self.critical = writer.write


class _StandardLibraryHandler(logging.Handler):
    """Sends what libraries log through structlog, without what they may quote."""

    def emit(self, record: logging.LogRecord) -> None:
        """Log where it came from, the constant part of the message, and the exception."""
        fields: dict[str, object] = {
            "logger": record.name,
            "source": f"{record.module}:{record.lineno}",
        }
        is_trusted = record.name.partition(".")[0] in _TRUSTED_LOGGERS
        if isinstance(record.msg, str) and (record.args or is_trusted):
            fields["message"] = _constant_part(record.msg)
        if record.exc_info:
            fields["exc_info"] = record.exc_info
        level = min(max(record.levelno, 10), 50) // 10 * 10
        structlog.get_logger().log(level, "library.logged", **fields)


def _constant_part(message: str) -> str:
    """Cut a message before the first thing that may be a value.

    asyncio's "Exception in callback f('...')" shows arguments, and its further lines objects.
    """
    return _VALUE.split(message, maxsplit=1)[0][:256].rstrip()


def _log_thread_failure(failure: threading.ExceptHookArgs) -> None:
    structlog.get_logger().error(
        "thread.died",
        thread=failure.thread.name if failure.thread else None,
        exc_info=failure.exc_value,
    )


def _log_unraisable(failure: "sys.UnraisableHookArgs") -> None:
    structlog.get_logger().error("exception.ignored", exc_info=failure.exc_value)
