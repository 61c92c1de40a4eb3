"""Figures of answers that were not what was asked for come with a warning."""

import json

import pytest

from provider_core.loadtest.caveats import caveats, tokens_per_answer
from provider_core.loadtest.charts import charts
from provider_core.loadtest.replies import Reply
from provider_core.loadtest.report import Report, Round
from provider_core.loadtest.report_json import report_json
from provider_core.loadtest.summary import summarise
from provider_core.loadtest.table import notes, tables
from tests.unit.loadtest.made_reports import made_point, made_report, made_round


def answers(target: str, *lengths: int, num_failed: int = 0) -> Round:
    """A round of answers with so many tokens each."""
    replies = [Reply(arrivals_s=[1.0], ended_s=2.0, output_tokens=length) for length in lengths]
    replies += [Reply(error="http_429")] * num_failed
    return Round(
        target=target,
        summary=summarise(replies),
        machine=None,
        resident_bytes=None,
        generator_cpu_s=0.0,
        timeline=(),
    )


def report_of(*rounds: Round, asked: str = "64", ignore_eos: bool = True) -> Report:
    """One point, with a server for each name."""
    labels = tuple(sorted({turn.target for turn in rounds}))
    report = made_report(made_point(*rounds, output_tokens=asked), labels=labels)
    report.settings = {"ignore_eos": ignore_eos}
    return report


def test_a_server_that_ends_early_is_named() -> None:
    """It answered 1/32 of what was asked, in a fraction of the time."""
    report = report_of(answers("A", 2, 2), answers("A", 2, 3), answers("B", 64, 64))

    assert list(caveats(report)) == [
        "A at c=1, 128 in, 64 out: its answers had 2.2 tokens, not the 64 asked for",
        "answers at c=1, 128 in, 64 out are not alike: A gave 2.2 tokens and B gave 64.0 tokens",
    ]


def test_caveats_are_in_every_form() -> None:
    """Beside the mean length of answers in the table."""
    report = report_of(answers("A", 2), answers("B", 64))
    throughput = tables(report)[0]
    column = throughput.numbers.index("tok/answer") + len(throughput.words)

    assert [row[column] for row in throughput.rows] == ["2.0", "64.0"]
    assert [note for note in notes(report) if note.startswith("Warning: A at c=1, 128 in, 64 out:")]
    assert {chart.note for chart in charts(report)} == {"Not all was answered as asked for."}
    assert json.loads(report_json(report))["caveats"] == list(caveats(report))


@pytest.mark.parametrize(
    ("asked", "length", "is_as_asked"),
    [
        ("64", 61, True),
        ("64", 60, False),
        ("64", 67, True),
        ("64", 68, False),
        ("64±16", 48, True),
        ("64±16", 45, False),
        ("64±16", 80, True),
        ("64±16", 85, False),
        ("trace", 1, True),
    ],
)
def test_a_length_may_be_any_that_was_asked_for(
    asked: str, length: int, *, is_as_asked: bool
) -> None:
    """Or one that is 5 % off; a trace has no one length."""
    assert bool(list(caveats(report_of(answers("A", length), asked=asked)))) != is_as_asked


def test_a_text_may_end_unless_told_not_to() -> None:
    """But none may go on beyond what was asked for."""
    assert not list(caveats(report_of(answers("A", 2), ignore_eos=False)))
    assert list(caveats(report_of(answers("A", 200), ignore_eos=False)))


@pytest.mark.parametrize(
    ("second", "are_alike"), [(96, True), (94, False), (105, True), (106, False)]
)
def test_answers_of_two_servers_are_as_long(second: int, *, are_alike: bool) -> None:
    """Within 5 % of the longer, whatever was asked for."""
    rounds = (answers("A", 100), answers("B", second))

    assert (not list(caveats(report_of(*rounds, asked="trace")))) == are_alike


def test_failures_of_one_of_two_servers_are_named() -> None:
    """What it refused it did not serve."""
    rounds = (answers("A", 64, num_failed=3), answers("A", 64), answers("B", 64))

    assert list(caveats(report_of(*rounds))) == [
        "A at c=1, 128 in, 64 out: 3 of 5 requests failed, which left it less to do"
    ]
    assert not list(caveats(report_of(*rounds[:2])))  # alone it is in the table, and in its words


def test_without_an_answer_there_is_no_length() -> None:
    """The command ends with an error of its own."""
    report = report_of(answers("A", num_failed=1), answers("B", 64))
    row = tables(report)[0].rows[0]

    assert tokens_per_answer(report.points[0].of("A")) is None
    assert "http_429" in row[tables(report)[0].numbers.index("failed") + 3]
    assert not list(caveats(report))


def test_answers_as_asked_have_no_caveat() -> None:
    """Of both servers."""
    rounds = (made_round("A", num_tokens=64), made_round("B", num_tokens=64))

    assert not list(caveats(report_of(*rounds)))
