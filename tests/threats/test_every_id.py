"""Every row of the catalogue of bad inputs has a test."""

import ast
import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
COUNTS = {"h": 34, "j": 15, "p": 25, "t": 11, "m": 11, "w": 6, "s": 11, "v": 14}
IDS = [f"{row}{number}" for row, count in COUNTS.items() for number in range(1, count + 1)]

UNDER_ANOTHER_NAME = {
    "m1": (
        "test_weights_outside_the_folder_are_refused",
        "test_linked_weights_are_refused",
        "test_a_linked_folder_of_weights_is_refused",
        "test_ranges_that_do_not_fit_are_refused",
        "test_overlapping_ranges_are_refused",
        "test_a_linked_model_file_is_refused",
    ),
    "m3": (
        "test_custom_operators_are_refused",
        "test_a_custom_library_in_genai_config_is_refused",
    ),
    "m4": ("test_compiled_engines_are_refused",),
    "m6": (
        "test_what_is_no_model_is_refused",
        "test_a_truncated_model_is_refused",
        "test_damaged_files_are_read_or_refused",
        "test_graphs_that_nest_too_deep_are_refused",
    ),
    "m10": (
        "test_two_distributions_with_one_name_stop_the_start",
        "test_a_plugin_named_twice_stops_the_start",
        "test_a_plugin_that_cannot_be_imported_stops_the_start",
        "test_a_misspelt_hook_or_argument_stops_the_start",
    ),
}
"""Rows that are tested beside the code they are about."""


def all_test_names() -> set[str]:
    """The name of every test function."""
    return {
        node.name
        for path in TESTS.rglob("test_*.py")
        if ".venv" not in path.parts
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.name.startswith("test_")
    }


NAMES = all_test_names()
NAMED = {row for name in NAMES for row in re.findall(r"_([hjptmwsv]\d+)(?=_|$)", name)}


@pytest.mark.parametrize("row", IDS)
def test_every_row_has_a_test(row: str) -> None:
    """By its id, or under another name that exists."""
    if row in NAMED:
        assert row not in UNDER_ANOTHER_NAME
    else:
        others = UNDER_ANOTHER_NAME.get(row)
        assert others, f"{row} has no test"
        assert set(others) - NAMES == set()
