"""What an export shows of itself."""

from io import StringIO

from rich.console import Console

from provider_export.progress import show_progress


def test_without_a_terminal_each_tenth_is_a_line() -> None:
    """However large the tensors, and never more than all of it."""
    console = Console(file=StringIO(), width=80)
    with show_progress(console, total=2_000_000) as advance:
        for num_weights in (100_000, 50_000, 1_010_000, 900_000, 1):
            advance(num_weights)
    assert isinstance(console.file, StringIO)
    assert console.file.getvalue().splitlines() == [
        "58% of 2.0 million weights",
        "100% of 2.0 million weights",
    ]


def test_a_terminal_has_a_bar() -> None:
    """It counts millions and goes away when it is done."""
    console = Console(file=StringIO(), force_terminal=True, width=80)
    with show_progress(console, total=2_000_000) as advance:
        advance(2_000_000)
    assert isinstance(console.file, StringIO)
    shown = console.file.getvalue()
    assert "2.0 of 2.0 million weights" in shown
    assert "58%" not in shown
