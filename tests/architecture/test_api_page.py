"""The table of paths in docs/api.md is made from the routes."""

from tests.architecture.api_page import PAGE, current


def test_the_page_lists_the_routes_that_are_there() -> None:
    """`make docs` writes the table anew."""
    assert PAGE.read_text(encoding="utf-8") == current()
