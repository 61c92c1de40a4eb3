"""What holds for the whole suite."""

from collections.abc import Iterator

import pytest

from tests import usage_lines


@pytest.fixture(autouse=True)
def _b25_every_usage_line_is_valid() -> Iterator[None]:
    """Whatever a test does, each line it makes fits the schema and adds up."""
    yield
    assert usage_lines.faults_of(usage_lines.drain()) == []


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--no-skips`, which continuous integration uses."""
    parser.addoption(
        "--no-skips",
        action="store_true",
        help="fail if a test that is not marked gpu was skipped: a missing tool is no success",
    )


@pytest.hookimpl(wrapper=True)
def pytest_sessionfinish(session: pytest.Session) -> object:
    """Turn a skip into a failure of the run, if asked to."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if session.config.getoption("--no-skips") and reporter is not None:
        skipped = [r for r in reporter.stats.get("skipped", ()) if "gpu" not in r.keywords]
        if skipped and session.exitstatus == pytest.ExitCode.OK:
            reporter.write_line(f"{len(skipped)} tests were skipped and --no-skips is set")
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
    return (yield)
