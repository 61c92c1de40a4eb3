"""Options of every command that makes a report. Imported at each start: it loads nothing more."""

from pathlib import Path
from typing import Annotated

import typer

OUTPUT = "Results"
"""The panel of the help that they are in."""

JsonFile = Annotated[
    str | None,
    typer.Option(
        "--json", metavar="FILE", help="Write all figures; - is stdout.", rich_help_panel=OUTPUT
    ),
]

HtmlFile = Annotated[
    Path | None,
    typer.Option(
        "--html",
        metavar="FILE",
        help="Write a page with charts, in one file.",
        rich_help_panel=OUTPUT,
    ),
]
