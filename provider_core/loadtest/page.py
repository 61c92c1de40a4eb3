"""A report as one HTML file that loads nothing from anywhere."""

from collections.abc import Iterable
from html import escape

from provider_core.loadtest.charts import charts
from provider_core.loadtest.report import Report
from provider_core.loadtest.svg import render
from provider_core.loadtest.table import Table, notes, tables

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 1320px; color: #222;
       background: #fff; padding: 0 1rem; }
table { border-collapse: collapse; margin: 0 0 2rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; font-weight: 600; padding: .3rem 0; }
th, td { padding: .15rem .7rem; text-align: right; white-space: nowrap;
         border-bottom: 1px solid #ddd; }
th.word, td.word { text-align: left; }
.charts { display: flex; flex-wrap: wrap; gap: 1rem; }
.charts svg { max-width: 100%; height: auto; border: 1px solid #ddd; }
.warning { color: #b00020; font-weight: 600; }
"""


def page(report: Report) -> str:
    """The whole document. Where a comparison is refused it says so and shows no figure."""
    title = f"Load test of {' and '.join(report.labels)}"
    parts = [f"<p>{escape(report.started)}</p>"]
    if report.refusal is not None:
        parts.append(f'<p class="warning">{escape(report.refusal)}</p>')
    parts.append("<ul>")
    for note in notes(report):
        kind = ' class="warning"' if note.startswith("Warning") else ""
        parts.append(f"<li{kind}>{escape(note)}</li>")
    parts.append("</ul>")
    parts += [render_table(table) for table in tables(report)]
    parts += ['<div class="charts">', *(render(chart) for chart in charts(report)), "</div>"]
    settings = "".join(
        f"<tr><td class=word>{escape(name)}</td><td>{escape(str(value))}</td></tr>"
        for name, value in report.settings.items()
        if value is not None
    )
    parts.append(f"<table><caption>Settings</caption>{settings}</table>")
    return document(title, parts)


def document(title: str, parts: Iterable[str]) -> str:
    """Parts of HTML as a whole document under a title."""
    head = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body>",
        f"<h1>{escape(title)}</h1>",
    ]
    return "\n".join([*head, *parts, "</body></html>", ""])


def render_table(table: Table) -> str:
    """A table as one `<table>` element."""
    num_words = len(table.words)
    head = _row((*table.words, *table.numbers), num_words, "th")
    body = "".join(_row(row, num_words, "td") for row in table.rows)
    caption = f"<caption>{escape(table.title)}</caption>"
    return f"<table>{caption}<thead>{head}</thead><tbody>{body}</tbody></table>"


def _row(cells: tuple[str, ...], num_words: int, tag: str) -> str:
    parts = []
    for index, cell in enumerate(cells):
        kind = " class=word" if index < num_words else ""
        parts.append(f"<{tag}{kind}>{escape(cell)}</{tag}>")
    return f"<tr>{''.join(parts)}</tr>"
