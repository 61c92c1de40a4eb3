"""How long the end of a process waits for the reader of its log."""

from collections.abc import Iterator
from unittest.mock import Mock, patch

import pytest

from provider_core.lifecycle import Lifecycle
from provider_core.server import startup
from provider_core.server.startup import Startup
from provider_core.settings import Settings


@pytest.fixture
def now() -> Iterator[Mock]:
    """The monotonic clock, in whose place a test sets the seconds."""
    with patch.object(startup, "time") as time:
        time.monotonic.return_value = 100.0
        yield time.monotonic


def make_startup(writer: Mock, grace_s: float) -> Startup:
    """A process that loads nothing and listens nowhere."""
    nothing = dict.fromkeys(("Listeners", "make_plugin_manager", "BackendLoader"), Mock())
    with patch.multiple(startup, specs_from_settings=lambda *_: [Mock()], **nothing):
        settings = Settings.model_validate({"server": {"grace_s": grace_s}})
        return Startup(settings, lambda: settings, Lifecycle(), writer)


@pytest.mark.usefixtures("now")
def test_a_process_that_nobody_stopped_waits_a_while() -> None:
    """It has no grace that could be exceeded."""
    writer = Mock()
    make_startup(writer, grace_s=4).close_log()
    writer.close.assert_called_once_with(5.0)


@pytest.mark.parametrize(("after_s", "left_s"), [(0, 5.0), (4, 3.5), (7, 0.5), (60, 0.5)])
def test_a_process_that_was_stopped_waits_for_what_is_left(
    now: Mock, after_s: float, left_s: float
) -> None:
    """A reader that reads gets the last lines even when the grace is over."""
    writer = Mock()
    process = make_startup(writer, grace_s=8)
    process.note_stop()
    now.return_value += after_s
    process.close_log()
    writer.close.assert_called_once_with(left_s)
