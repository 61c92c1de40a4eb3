"""What the log says, and above all what it does not say."""

import asyncio
import gc
import logging
import re
import threading
from pathlib import Path
from typing import Any, Literal

import pytest
import structlog
from structlog.testing import capture_logs

from provider_core.access import load_or_mint
from provider_core.errors import AuthenticationFailed, EngineDead, InvalidRequest
from provider_core.json_lines import encode_line
from provider_core.observability import LineWriter, log_access, start_logging
from provider_core.observability.tracebacks import format_exception
from provider_core.settings import LoggingSettings, Settings
from tests.unit.observability.conftest import ReadLines

NINE_FIELDS = {
    "timestamp",
    "generation_id",
    "model",
    "latency_ms",
    "prompt_tokens",
    "completion_tokens",
    "cost",
    "status",
    "user_id",
}
USAGE_EVENT = {
    "generation_id": "gen-1",
    "model": "acme/m",
    "prompt_tokens": 3,
    "completion_tokens": 4,
    "cost": "0.0000342",
    "status": "cancelled",
    "user_id": "u",
}
CANARY = "canary-in-a-coal-mine"


def access(**overrides: Any) -> None:
    """Log a request; keywords override."""
    fields: dict[str, Any] = {
        "method": "POST",
        "path": "/v1/chat/completions",
        "http_status": 200,
        "request_id": "req-1",
        "latency_ms": 1.23456,
        "num_sent_bytes": 10,
    }
    log_access(**fields | overrides)


def fail(prompt: str) -> None:
    """Fail as a decoder does, quoting what it could not read."""
    raise ValueError(f"cannot decode {prompt!r}")


def test_access_line_of_a_generation(read_lines: ReadLines) -> None:
    """It carries the nine fields at top level, with the numbers of the usage event."""
    access(usage_event=USAGE_EVENT, api_key_id="key_1", stream=True)
    [line] = read_lines()
    assert set(line) >= NINE_FIELDS
    assert {name: line[name] for name in USAGE_EVENT} == USAGE_EVENT
    assert line["latency_ms"] == 1.235
    assert (line["event"], line["level"], line["stream"]) == ("request.access", "info", True)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", line["timestamp"])


@pytest.mark.parametrize(
    ("http_status", "status"), [(200, "ok"), (401, "error"), (503, "error"), (499, "cancelled")]
)
def test_access_line_of_a_refused_request(
    read_lines: ReadLines, http_status: int, status: str
) -> None:
    """The nine fields are there even when nothing was generated."""
    access(http_status=http_status, error_code="invalid_api_key", user_id="a\nb\udce9")
    [line] = read_lines()
    assert set(line) >= NINE_FIELDS
    assert (line["status"], line["cost"], line["prompt_tokens"]) == (status, "0", 0)
    assert line["user_id"] == "ab\ufffd"
    assert line["generation_id"] is line["model"] is None


def test_capture_logs_sees_access_lines(writer: LineWriter) -> None:
    """Tests of the server need not read files."""
    with capture_logs() as logs:
        access(usage_event=USAGE_EVENT)
    assert [(log["event"], log["cost"]) for log in logs] == [("request.access", "0.0000342")]


def test_lines_are_ascii_and_whole(writer: LineWriter, log_path: Path) -> None:
    """Line separators, escapes and surrogates in a value cannot forge a line."""
    forged = 'x\r\n{"event":"usage.final"}\u2028\x1b[31m\udce9'
    structlog.get_logger().info("thing.happened", value=forged)
    writer.close()
    content = log_path.read_bytes()
    assert content.isascii()
    assert content.count(b"\n") == len(content.decode().splitlines()) == 1
    assert b"\x1b" not in content


def test_level_is_respected(logging_restored: None, log_path: Path) -> None:
    """Below the level nothing is written."""
    with log_path.open("wb") as file:
        writer = start_logging(LoggingSettings(level="error"), file.fileno())
    structlog.get_logger().warning("thing.happened")
    logging.getLogger("aiohttp").warning("something")
    structlog.get_logger().error("thing.broke")
    writer.close()
    assert log_path.read_bytes().count(b"\n") == 1


def test_warnings_are_counted_by_event(writer: LineWriter) -> None:
    """And what is worse, also what libraries log; not what all is well with."""
    log = structlog.get_logger()
    log.info("thing.happened")
    log.warning("thing.failed")
    log.error("thing.broke")
    log.error("thing.broke")
    log.critical("thing.ended")
    logging.getLogger("aiohttp").warning("something")
    assert writer.num_warnings == {
        "thing.failed": 1,
        "thing.broke": 2,
        "thing.ended": 1,
        "library.logged": 1,
    }


def test_context_variables_are_merged(read_lines: ReadLines) -> None:
    """What a middleware bound is on every line of the request."""
    with structlog.contextvars.bound_contextvars(request_id="req-7"):
        structlog.get_logger().info("thing.happened")
    assert read_lines()[0]["request_id"] == "req-7"


def test_a_traceback_shows_where_and_not_what(read_lines: ReadLines) -> None:
    """Frames and types are logged, through every cause, and no message that could quote."""
    try:
        try:
            fail(CANARY)
        except ValueError as error:
            raise InvalidRequest(f"no good: {CANARY}") from error
    except InvalidRequest:
        structlog.get_logger().exception("request.failed", prompt_length=3)
    [line] = read_lines()
    assert line["exception_type"] == "InvalidRequest"
    assert 'raise ValueError(f"cannot decode {prompt!r}")' in line["exception"]
    assert line["exception"].index("ValueError") < line["exception"].index("InvalidRequest")
    assert CANARY not in str(line)


@pytest.mark.parametrize("style", ["json", "pretty"])
def test_a_traceback_shows_no_variables(
    logging_restored: None, log_path: Path, style: Literal["json", "pretty"]
) -> None:
    """Frames hold prompts; their variables are shown in no format, whatever is installed."""

    def answer(prompt: str) -> int:
        words = prompt.split()
        return len(words) // 0

    with log_path.open("wb") as file:
        writer = start_logging(LoggingSettings(level="debug", format=style), file.fileno())
        try:
            answer(CANARY)
        except ZeroDivisionError:
            structlog.get_logger().exception("request.failed")
        thread = threading.Thread(target=answer, args=(CANARY,))
        thread.start()
        thread.join()
        writer.close()
    text = log_path.read_text()
    assert text.count("len(words) // 0") == 2
    assert CANARY not in text


def test_messages_known_to_be_harmless_are_kept() -> None:
    """Ours about ourselves, the system's, and what could not be imported."""
    kept = [
        EngineDead("the session is gone"),
        FileNotFoundError(2, "No such file or directory", CANARY),
        ModuleNotFoundError("No module named 'onnxruntime'"),
    ]
    texts = [format_exception(error) for error in kept]
    assert [text.splitlines()[-1] for text in texts] == [
        "EngineDead: the session is gone",
        "FileNotFoundError: No such file or directory",
        "ModuleNotFoundError: No module named 'onnxruntime'",
    ]


def test_long_chains_and_cycles_end() -> None:
    """A traceback is at most 8,000 characters, however exceptions refer to each other."""
    first, second = ValueError(), KeyError()
    first.__cause__, second.__cause__ = second, first
    assert len(format_exception(first)) <= 8000

    def recurse(depth: int) -> None:
        if depth == 0:
            fail(CANARY)
        recurse(depth - 1)

    with pytest.raises(ValueError, match=CANARY) as failure:
        recurse(200)
    text = format_exception(failure.value)
    assert len(text) <= 8000
    assert text.endswith("ValueError")


async def _fail_in_a_task(prompt: str) -> None:
    fail(prompt)


class _FailsInDel:
    def __del__(self) -> None:
        fail(CANARY)


def test_no_way_of_logging_leaks(
    read_lines: ReadLines, log_path: Path, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """A prompt planted in every path that ends in a log appears in none of them."""
    log = structlog.get_logger()
    try:
        raise ExceptionGroup(CANARY, [ValueError(CANARY), KeyError(CANARY)])  # noqa: TRY301
    except ExceptionGroup as group:
        log.exception("a.failed")
        log.exception("b.failed", error=group)
        logging.getLogger("aiohttp.server").exception("Error handling request from %s", CANARY)
        logging.getLogger("somebody").error("quoting " + CANARY)  # noqa: G003, TRY400
        logging.getLogger("somebody").error("quoting %s", CANARY)  # noqa: TRY400
    log.info("c.happened", value=AuthenticationFailed(CANARY), raw=CANARY.encode())

    async def use_a_loop() -> None:
        loop = asyncio.get_running_loop()
        loop.call_soon(fail, CANARY)
        task = loop.create_task(_fail_in_a_task(CANARY), name=CANARY)
        await asyncio.wait([task])
        del task
        gc.collect()

    asyncio.run(use_a_loop())
    thread = threading.Thread(target=fail, args=(CANARY,))
    thread.start()
    thread.join()
    _FailsInDel()
    gc.collect()
    store, key = load_or_mint(tmp_path / "data", None)
    assert key is not None
    principal = asyncio.run(store.authenticate(key))
    log.info("d.happened", store=store, principal=principal, settings=Settings(api_key=CANARY))
    lines = read_lines()
    assert [line["event"] for line in lines if line["event"] != "library.logged"] == [
        "a.failed",
        "b.failed",
        "c.happened",
        "thread.died",
        "exception.ignored",
        "d.happened",
    ]
    messages = [line.get("message") for line in lines if line["event"] == "library.logged"]
    assert messages == [
        "Error handling request from %s",
        None,
        "quoting %s",
        "Exception in callback fail",
        "Task exception was never retrieved",
    ]
    everything = log_path.read_text() + "".join(capfd.readouterr())
    assert CANARY not in everything
    assert key not in everything
    assert key.rsplit("-", 1)[1] not in everything


def test_settings_do_not_show_the_key() -> None:
    """`repr` of the settings is safe to print."""
    assert CANARY not in repr(Settings(api_key=CANARY))


def test_pretty_lines_for_people(logging_restored: None, log_path: Path) -> None:
    """A terminal gets short lines and readable tracebacks instead of JSON."""
    with log_path.open("wb") as file:
        writer = start_logging(LoggingSettings(format="pretty"), file.fileno())
    access(usage_event=USAGE_EVENT)
    writer.emit(encode_line({"event": "usage.final", "timestamp": "now", "boot_id": "b"}))
    try:
        fail(CANARY)
    except ValueError:
        structlog.get_logger().exception("thing.failed", nested={"a": [1]})
    assert writer.close()
    text = log_path.read_text()
    assert "{" not in text.splitlines()[0]
    assert "cost=0.0000342" in text.splitlines()[0]
    assert "boot_id" not in text
    assert "\nTraceback (most recent call last):\n" in text
    assert CANARY not in text


def test_nothing_is_configured_on_import() -> None:
    """A program that only imports us keeps its own logging."""
    assert not structlog.is_configured()
