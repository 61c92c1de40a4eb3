"""A run written down: filled-in checklists as Markdown, and everything as JSON."""

import re
from collections.abc import Mapping
from typing import Any

import orjson

from provider_core.conformance.answers import Answer, Answers
from provider_core.conformance.checklist import NAMES, Checklist, Line, load_checklist
from provider_core.conformance.facts import Facts
from provider_core.conformance.runner import Report, Result
from provider_core.conformance.verdict import Status

_BLANK = re.compile(r"\s*`_+[^`]*`")
_LABELS = {"pass": "pass", "fail": "**FAIL**", "warn": "warning", "not_applicable": "n/a"}
_FLAWED: Mapping[Status, str] = {"fail": "**FAILED**, ", "warn": "doubtful, "}
_SOURCES = {
    "measured": "measured",
    "listed": "listed",
    "stated": "provider.toml",
    "missing": "**open**",
    "not_applicable": "not applicable",
}


def to_markdown(report: Report, facts: Facts) -> str:
    """Every checklist with every line answered, and every check with what it found."""
    answers = Answers(report, facts)
    counts = (
        f"{report.count('pass')} passed, {report.count('fail')} failed, "
        f"{report.count('warn')} warnings, {report.count('not_applicable')} not applicable"
    )
    source = f"`{facts.source}`" if facts.source else "no file: name one with `--config`"
    parts = [
        f"# {report.subject.model} at {report.endpoint.base}",
        f"Checked from outside at {report.started}: {counts}.",
        f"The provider's own facts are from {source}.",
        "A line is ticked if it was measured, is listed or is stated, and holds.",
        *(_checklist(load_checklist(name), answers) for name in NAMES),
        _results(report),
    ]
    return "\n\n".join(parts) + "\n"


def to_json(report: Report, facts: Facts) -> bytes:
    """The same as one JSON object."""
    answers = Answers(report, facts)
    return orjson.dumps(
        {
            "endpoint": report.endpoint.base,
            "model": report.subject.model,
            "started": report.started,
            "passed": not report.has_failed,
            "checks": [_result(result) for result in report.results],
            "checklists": {
                name: [
                    _answered(section.title, line, answers.answer(line))
                    for section in load_checklist(name).sections
                    for line in section.lines
                ]
                for name in NAMES
            },
        },
        option=orjson.OPT_INDENT_2,
    )


def _checklist(checklist: Checklist, answers: Answers) -> str:
    lines = [f"## {checklist.title}"]
    for section in checklist.sections:
        lines += ["", f"{'#' * (section.level + 1)} {section.title}", ""]
        lines += [_line(line, answers.answer(line)) for line in section.lines]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).rstrip()


def _line(line: Line, answer: Answer) -> str:
    wording = _BLANK.sub("", line.text).strip() or "Answer:"
    tick = "x" if answer.status == "pass" else " "
    source = _FLAWED.get(answer.status, "") if answer.source == "measured" else ""
    source += _SOURCES[answer.source]
    return f"- [{tick}] {wording}\n  - {source}: {_flat(answer.text)}"


def _results(report: Report) -> str:
    rows = ["## Checks", "", "| check | result | what was found |", "|---|---|---|"]
    for result in report.results:
        detail = _flat(result.detail).replace("|", "\\|")
        rows.append(f"| {result.check.title} (`{result.check.id}`) | {_label(result)} | {detail} |")
    failed = [result for result in report.results if result.status in {"fail", "warn"}]
    for result in failed:
        if result.curl:
            rows += ["", f"`{result.check.id}`, again:", "", "```", result.curl, "```"]
    return "\n".join(rows)


def _label(result: Result) -> str:
    return _LABELS[result.status]


def _flat(text: str) -> str:
    return " ".join(text.split())


def _result(result: Result) -> dict[str, Any]:
    return {
        "id": result.check.id,
        "title": result.check.title,
        "status": result.status,
        "detail": result.detail,
        "curl": result.curl,
        "duration_s": round(result.duration_s, 3),
    }


def _answered(section: str, line: Line, answer: Answer) -> dict[str, str]:
    return {
        "section": section,
        "line": line.text,
        "status": answer.status,
        "source": answer.source,
        "answer": answer.text,
    }
